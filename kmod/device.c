// SPDX-License-Identifier: GPL-2.0
/*
 * /dev/thermocline: checks every request and keeps the attachments. See uapi/thermocline.h.
 */
#include <linux/capability.h>
#include <linux/compat.h>
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/pid.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/sched/task.h>
#include <linux/slab.h>
#include <linux/time_namespace.h>
#include <linux/timekeeping.h>
#include <linux/uaccess.h>

#include "module.h"

#define END_PAGE (TASK_SIZE_MAX >> PAGE_SHIFT)

static atomic_t attachments = ATOMIC_INIT(0);

static bool is_zero(const void *bytes, size_t size)
{
	return !memchr_inv(bytes, 0, size);
}

/* ------------------------------------------------------------------ INFO ----------------------- */

static long get_info(struct thermocline_info __user *arg)
{
	const struct thermocline_info info = {
		.abi_version = THERMOCLINE_ABI_VERSION,
		.record_version = THERMOCLINE_RECORD_VERSION,
		.features = THERMOCLINE_FEATURE_SCAN | THERMOCLINE_FEATURE_FLUSH |
			    (IS_ENABLED(CONFIG_PAGE_IDLE_FLAG) ? THERMOCLINE_FEATURE_YOUNG : 0),
		.max_lock_ns = THERMOCLINE_MAX_HOLD_NS,
		.attachments = atomic_read(&attachments),
	};

	return copy_to_user(arg, &info, sizeof(info)) ? -EFAULT : 0;
}

/* ------------------------------------------------------------------ ATTACH --------------------- */

/* Field 22 of /proc/PID/stat, as the caller's own time namespace shows it. */
static u64 start_ticks(const struct task_struct *task)
{
	BUILD_BUG_ON(NSEC_PER_SEC % USER_HZ);
	return timens_add_boottime_ns(task->start_boottime) / (NSEC_PER_SEC / USER_HZ);
}

/*
 * The address space of a process, with mm_count held. The main thread may be gone while others run.
 * A kernel thread has none.
 */
static struct mm_struct *grab_mm(struct task_struct *leader)
{
	struct mm_struct *mm = NULL;
	struct task_struct *thread;

	rcu_read_lock();
	for_each_thread(leader, thread) {
		mm = get_task_mm(thread);
		if (mm)
			break;
	}
	rcu_read_unlock();
	if (!mm)
		return NULL;
	mmgrab(mm);
	mmput(mm);
	return mm;
}

static long attach(struct thermocline_attachment *att, const struct thermocline_attach __user *arg)
{
	struct thermocline_attach request;
	struct mm_struct *mm = NULL;
	struct task_struct *task;
	struct pid *pid;

	if (copy_from_user(&request, arg, sizeof(request)))
		return -EFAULT;
	if (request.pid <= 0 || request.flags || !request.asid ||
	    !is_zero(request.reserved, sizeof(request.reserved)))
		return -EINVAL;
	if (att->mm)
		return -EBUSY;

	pid = find_get_pid(request.pid);
	task = get_pid_task(pid, PIDTYPE_TGID);
	put_pid(pid);
	if (!task)
		return -ESRCH;
	/* The task reference pins the identity: it is checked on what was found, not on a number. */
	if (start_ticks(task) == request.start_ticks)
		mm = grab_mm(task);
	put_task_struct(task);
	if (!mm)
		return -ESRCH;

	att->bounce = kvmalloc(THERMOCLINE_BOUNCE_BYTES, GFP_KERNEL_ACCOUNT);
	if (!att->bounce) {
		mmdrop(mm);
		return -ENOMEM;
	}
	att->mm = mm;
	att->asid = request.asid;
	atomic_inc(&attachments);
	return 0;
}

/* ------------------------------------------------------------------ SCAN ----------------------- */

static bool scan_is_valid(const struct thermocline_scan *scan)
{
	if (scan->flags & ~THERMOCLINE_SCAN_FLAGS_ALL)
		return false;
	if ((scan->flags & THERMOCLINE_SCAN_FLUSH) && !(scan->flags & THERMOCLINE_SCAN_CLEAR))
		return false;
	if (scan->range_count > THERMOCLINE_SCAN_MAX_RANGES)
		return false;
	if (scan->buffer % sizeof(u64) || scan->buffer_size < THERMOCLINE_SCAN_MIN_BUFFER)
		return false;
	return scan->resume_page < END_PAGE && !scan->reserved0 &&
	       is_zero(scan->reserved, sizeof(scan->reserved));
}

static bool ranges_are_valid(const struct thermocline_range *ranges, u32 count)
{
	u64 end = 0;
	u32 i;

	for (i = 0; i < count; i++) {
		if (!ranges[i].count || ranges[i].first_page < end ||
		    ranges[i].first_page >= END_PAGE ||
		    ranges[i].count > END_PAGE - ranges[i].first_page)
			return false;
		end = ranges[i].first_page + ranges[i].count;
	}
	return true;
}

/*
 * How long the accessed bits that are about to be read could be set: since the last clearing pass
 * began. A pass is a call with resume_page 0 and the calls that resume it.
 */
static u64 window(struct thermocline_attachment *att, const struct thermocline_scan *scan, u64 now)
{
	u64 since_cleared = att->cleared_ns ? now - att->cleared_ns : 0;

	if (!(scan->flags & THERMOCLINE_SCAN_CLEAR))
		return since_cleared;
	if (!scan->resume_page) {
		att->window_ns = since_cleared;
		att->cleared_ns = now;
	}
	return att->window_ns;
}

static long scan(struct thermocline_attachment *att, struct thermocline_scan __user *arg)
{
	struct thermocline_range *ranges = NULL;
	struct thermocline_scan request;
	u64 began = ktime_get_ns(), window_ns;
	long err;

	if (copy_from_user(&request, arg, sizeof(request)))
		return -EFAULT;
	if (!scan_is_valid(&request))
		return -EINVAL;
	if (!att->mm)
		return -ENOTCONN;
	if (request.range_count) {
		ranges = vmemdup_user(u64_to_user_ptr(request.ranges),
				      request.range_count * sizeof(*ranges));
		if (IS_ERR(ranges))
			return PTR_ERR(ranges);
		if (!ranges_are_valid(ranges, request.range_count)) {
			err = -EINVAL;
			goto out;
		}
	}
	request.bytes = 0;
	request.records = 0;
	request.entries = 0;
	request.accessed = 0;
	request.skipped_pages = 0;
	request.max_lock_ns = 0;
	request.lock_drops = 0;

	window_ns = window(att, &request, began);
	err = thermocline_walk(att, &request, ranges, request.window_ns ?: window_ns);
	request.elapsed_ns = ktime_get_ns() - began;
	if (!err && copy_to_user(arg, &request, sizeof(request)))
		err = -EFAULT;
out:
	kvfree(ranges);
	return err;
}

/* ------------------------------------------------------------------ the device ----------------- */

static long device_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	struct thermocline_attachment *att = file->private_data;
	void __user *user = (void __user *)arg;
	long err;

	if (cmd == THERMOCLINE_IOC_INFO)
		return get_info(user);
	if (cmd != THERMOCLINE_IOC_ATTACH && cmd != THERMOCLINE_IOC_SCAN)
		return -ENOTTY;
	if (mutex_lock_killable(&att->lock))
		return -EINTR;
	err = cmd == THERMOCLINE_IOC_ATTACH ? attach(att, user) : scan(att, user);
	mutex_unlock(&att->lock);
	return err;
}

static int device_open(struct inode *inode, struct file *file)
{
	struct thermocline_attachment *att;

	if (!capable(CAP_SYS_ADMIN))
		return -EPERM;
	att = kvzalloc(sizeof(*att), GFP_KERNEL_ACCOUNT);
	if (!att)
		return -ENOMEM;
	mutex_init(&att->lock);
	file->private_data = att;
	return nonseekable_open(inode, file);
}

static int device_release(struct inode *inode, struct file *file)
{
	struct thermocline_attachment *att = file->private_data;

	if (att->mm) {
		mmdrop(att->mm);
		atomic_dec(&attachments);
	}
	kvfree(att->bounce);
	kvfree(att);
	return 0;
}

static const struct file_operations device_operations = {
	.owner = THIS_MODULE, /* an open file keeps the module in place */
	.open = device_open,
	.release = device_release,
	.unlocked_ioctl = device_ioctl,
	.compat_ioctl = compat_ptr_ioctl, /* the structures are the same for 32-bit programs */
};

static struct miscdevice device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "thermocline",
	.fops = &device_operations,
	.mode = 0600,
};

module_misc_device(device);

MODULE_LICENSE("GPL");
MODULE_AUTHOR("The Thermocline authors");
MODULE_DESCRIPTION("Reads and clears accessed bits of a process's page tables");
MODULE_VERSION(THERMOCLINE_VERSION);
