// SPDX-License-Identifier: GPL-2.0
/*
 * /dev/thermocline: checks every request and keeps the attachments. See uapi/thermocline.h.
 */
#include <linux/capability.h>
#include <linux/compat.h>
#include <linux/fs.h>
#include <linux/log2.h>
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
#include <linux/vmalloc.h>

#include "compat.h"
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
		.features = THERMOCLINE_FEATURE_SCAN | THERMOCLINE_FEATURE_CONTINUOUS |
			    THERMOCLINE_FEATURE_SHARED |
			    (thermocline_can_flush() ? THERMOCLINE_FEATURE_FLUSH : 0) |
			    (IS_ENABLED(CONFIG_PAGE_IDLE_FLAG) ? THERMOCLINE_FEATURE_YOUNG : 0) |
			    (thermocline_can_prune() ? THERMOCLINE_FEATURE_PRUNE |
							       THERMOCLINE_FEATURE_PRUNE_FIRST :
						       0),
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
	mmput_async(mm); /* may be the last user by now */
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

	/*
	 * Not kvmalloc(): its second try would hide a failure from the tests that cause one. What an entry
	 * costs is the same with either (tests/lab/kmod-instructions.host).
	 */
	att->bounce = __vmalloc(THERMOCLINE_BOUNCE_BYTES, GFP_KERNEL_ACCOUNT);
	if (!att->bounce) {
		mmdrop(mm);
		return -ENOMEM;
	}
	att->mm = mm;
	att->pid = request.pid;
	att->asid = request.asid;
	atomic_inc(&attachments);
	return 0;
}

/* ------------------------------------------------------------------ SCAN ----------------------- */

static bool flags_are_valid(u32 flags)
{
	if (flags & ~THERMOCLINE_SCAN_FLAGS_ALL)
		return false;
	if ((flags & (THERMOCLINE_SCAN_FLUSH | THERMOCLINE_SCAN_PRUNE)) &&
	    !(flags & THERMOCLINE_SCAN_CLEAR))
		return false;
	if ((flags & THERMOCLINE_SCAN_FLUSH) && !thermocline_can_flush())
		return false;
	return !(flags & THERMOCLINE_SCAN_PRUNE) || thermocline_can_prune();
}

static bool scan_is_valid(const struct thermocline_scan *scan)
{
	if (!flags_are_valid(scan->flags))
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

/* Copies and checks a list of ranges; NULL for none. */
static struct thermocline_range *get_ranges(u64 user, u32 count)
{
	struct thermocline_range *ranges;

	if (!count)
		return NULL;
	ranges = vmemdup_user(u64_to_user_ptr(user), count * sizeof(*ranges));
	if (!IS_ERR(ranges) && !ranges_are_valid(ranges, count)) {
		kvfree(ranges);
		return ERR_PTR(-EINVAL);
	}
	return ranges;
}

/* The user's buffer, as a sink. */
struct buffer {
	struct thermocline_sink sink;
	u8 __user *at;
};

static int buffer_put(struct thermocline_sink *sink, const void *records, size_t bytes)
{
	struct buffer *buffer = container_of(sink, struct buffer, sink);

	if (copy_to_user(buffer->at, records, bytes))
		return -EFAULT;
	buffer->at += bytes;
	return 0;
}

static long scan(struct thermocline_attachment *att, struct thermocline_scan __user *arg)
{
	struct buffer buffer = { .sink.put = buffer_put };
	struct thermocline_range *ranges;
	struct thermocline_scan request;
	u64 window_ns;
	long err;

	if (copy_from_user(&request, arg, sizeof(request)))
		return -EFAULT;
	if (!scan_is_valid(&request))
		return -EINVAL;
	if (!att->mm)
		return -ENOTCONN;
	if (att->thread)
		return READ_ONCE(att->gone) ? -ESRCH : -EBUSY;
	ranges = get_ranges(request.ranges, request.range_count);
	if (IS_ERR(ranges))
		return PTR_ERR(ranges);
	request.bytes = 0;
	request.records = 0;
	request.entries = 0;
	request.accessed = 0;
	request.skipped_pages = 0;
	request.idle_pages = 0;
	request.max_lock_ns = 0;
	request.lock_drops = 0;

	buffer.sink.room = request.buffer_size;
	buffer.at = u64_to_user_ptr(request.buffer);
	window_ns = request.window_ns;
	err = thermocline_walk(att, &request, ranges, &buffer.sink);
	request.window_ns = window_ns; /* the call that resumes this one says the same */
	if (!err && copy_to_user(arg, &request, sizeof(request)))
		err = -EFAULT;
	kvfree(ranges);
	return err;
}

/* ------------------------------------------------------------------ START, CONFIGURE, STOP ----- */

static bool schedule_is_valid(const struct thermocline_schedule *schedule)
{
	if (schedule->flags & ~THERMOCLINE_SCHEDULE_FLAGS_ALL ||
	    !flags_are_valid(schedule->flags & THERMOCLINE_SCAN_FLAGS_ALL))
		return false;
	if (schedule->flags & THERMOCLINE_SCHEDULE_PRUNE_FIRST &&
	    !(schedule->flags & THERMOCLINE_SCAN_PRUNE))
		return false;
	if (schedule->windows > THERMOCLINE_SCHEDULE_MAX_WINDOWS ||
	    schedule->range_count > THERMOCLINE_SCAN_MAX_RANGES)
		return false;
	if (schedule->windows ? schedule->window_ns < THERMOCLINE_SCHEDULE_MIN_WINDOW_NS ||
					schedule->window_ns > THERMOCLINE_SCHEDULE_MAX_NS :
				schedule->window_ns != 0)
		return false;
	if (schedule->period_ns && (schedule->period_ns < THERMOCLINE_SCHEDULE_MIN_PERIOD_NS ||
				    schedule->period_ns > THERMOCLINE_SCHEDULE_MAX_NS))
		return false;
	if (schedule->budget_ppm && (schedule->budget_ppm < THERMOCLINE_SCHEDULE_MIN_BUDGET_PPM ||
				     schedule->budget_ppm > 1000000))
		return false;
	if (schedule->burst_ns > THERMOCLINE_SCHEDULE_MAX_NS ||
	    (schedule->burst_ns && !schedule->budget_ppm))
		return false;
	return schedule->nice >= 0 && schedule->nice <= MAX_NICE && !schedule->reserved0 &&
	       is_zero(schedule->reserved, sizeof(schedule->reserved));
}

/* What the thread is to do, checked; or an error. */
static struct thermocline_plan *make_plan(const struct thermocline_schedule *schedule)
{
	struct thermocline_plan *plan;
	struct thermocline_range *ranges;

	if (!schedule_is_valid(schedule))
		return ERR_PTR(-EINVAL);
	ranges = get_ranges(schedule->ranges, schedule->range_count);
	if (IS_ERR(ranges))
		return ERR_CAST(ranges);
	plan = kmalloc(sizeof(*plan), GFP_KERNEL_ACCOUNT);
	if (!plan) {
		kvfree(ranges);
		return ERR_PTR(-ENOMEM);
	}
	plan->schedule = *schedule;
	plan->ranges = ranges;
	return plan;
}

/* Puts @ring, whose reference it takes, in the place of the one before. */
static void set_ring(struct thermocline_attachment *att, struct thermocline_ring *ring)
{
	struct thermocline_ring *old;

	spin_lock(&att->ring_lock);
	old = att->ring;
	att->ring = ring;
	spin_unlock(&att->ring_lock);
	if (!old)
		return;
	/* No thread runs yet, so nobody else counts. */
	thermocline_ring_stats(old, &att->totals);
	thermocline_ring_put(old);
}

static long start(struct thermocline_attachment *att, struct thermocline_start __user *arg)
{
	struct thermocline_start request;
	struct thermocline_ring *ring;
	struct thermocline_plan *plan;
	long err;

	if (copy_from_user(&request, arg, sizeof(request)))
		return -EFAULT;
	if (request.map_bytes || !is_zero(request.reserved, sizeof(request.reserved)) ||
	    !is_power_of_2(request.ring_bytes) || request.ring_bytes < THERMOCLINE_RING_MIN_BYTES ||
	    request.ring_bytes > THERMOCLINE_RING_MAX_BYTES)
		return -EINVAL;
	plan = make_plan(&request.schedule);
	if (IS_ERR(plan))
		return PTR_ERR(plan);
	err = -ENOTCONN;
	if (!att->mm)
		goto free_plan;
	err = -EBUSY;
	if (att->thread)
		goto free_plan;
	err = -ESRCH;
	if (!atomic_read(&att->mm->mm_users))
		goto free_plan;
	err = -ENOMEM;
	ring = thermocline_ring_create(request.ring_bytes, &att->wait);
	if (!ring)
		goto free_plan;
	/* Before the thread is there: an error leaves nothing that runs. */
	request.map_bytes = thermocline_ring_map_bytes(ring);
	err = -EFAULT;
	if (copy_to_user(arg, &request, sizeof(request)))
		goto put_ring;
	err = thermocline_thread_create(att, ring, plan);
	if (err)
		goto put_ring;
	set_ring(att, ring);
	thermocline_thread_run(att->thread);
	return 0;

put_ring:
	thermocline_ring_put(ring);
free_plan:
	thermocline_plan_free(plan);
	return err;
}

static long configure(struct thermocline_attachment *att,
		      const struct thermocline_schedule __user *arg)
{
	struct thermocline_schedule schedule;
	struct thermocline_plan *plan;

	if (copy_from_user(&schedule, arg, sizeof(schedule)))
		return -EFAULT;
	plan = make_plan(&schedule);
	if (IS_ERR(plan))
		return PTR_ERR(plan);
	if (!att->thread || READ_ONCE(att->gone)) {
		thermocline_plan_free(plan);
		return att->thread ? -ESRCH : -ENOTCONN;
	}
	thermocline_thread_configure(att->thread, plan);
	return 0;
}

static long stop(struct thermocline_attachment *att)
{
	if (!att->thread)
		return -ENOTCONN;
	thermocline_thread_stop(att);
	return 0;
}

/* ------------------------------------------------------------------ STATS ---------------------- */

static long get_stats(struct thermocline_attachment *att, struct thermocline_stats __user *arg)
{
	struct thermocline_stats stats;
	u32 i;

	thermocline_thread_stats(att, &stats);
	if (att->ring)
		thermocline_ring_stats(att->ring, &stats);
	for (i = 0; i < THERMOCLINE_STATS_HOLDS; i++)
		stats.holds[i] = READ_ONCE(att->holds[i]);
	return copy_to_user(arg, &stats, sizeof(stats)) ? -EFAULT : 0;
}

/* ------------------------------------------------------------------ the device ----------------- */

static long locked_ioctl(struct thermocline_attachment *att, unsigned int cmd, void __user *user)
{
	switch (cmd) {
	case THERMOCLINE_IOC_ATTACH:
		return attach(att, user);
	case THERMOCLINE_IOC_SCAN:
		return scan(att, user);
	case THERMOCLINE_IOC_START:
		return start(att, user);
	case THERMOCLINE_IOC_STOP:
		return stop(att);
	case THERMOCLINE_IOC_CONFIGURE:
		return configure(att, user);
	case THERMOCLINE_IOC_STATS:
		return get_stats(att, user);
	default:
		return -ENOTTY;
	}
}

static long device_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	struct thermocline_attachment *att = file->private_data;
	void __user *user = (void __user *)arg;
	long err;

	if (cmd == THERMOCLINE_IOC_INFO)
		return get_info(user);
	if (mutex_lock_killable(&att->lock))
		return -EINTR;
	err = locked_ioctl(att, cmd, user);
	mutex_unlock(&att->lock);
	return err;
}

/* The ring as it is now, with a reference; NULL when there is none. */
static struct thermocline_ring *get_ring(struct thermocline_attachment *att)
{
	struct thermocline_ring *ring;

	spin_lock(&att->ring_lock);
	ring = att->ring;
	if (ring)
		refcount_inc(&ring->users);
	spin_unlock(&att->ring_lock);
	return ring;
}

static int device_mmap(struct file *file, struct vm_area_struct *vma)
{
	struct thermocline_ring *ring = get_ring(file->private_data);
	int err;

	if (!ring)
		return -ENOTCONN;
	err = thermocline_ring_map(ring, vma);
	thermocline_ring_put(ring);
	return err;
}

static __poll_t device_poll(struct file *file, poll_table *table)
{
	struct thermocline_attachment *att = file->private_data;
	__poll_t events = 0;

	poll_wait(file, &att->wait, table);
	spin_lock(&att->ring_lock);
	if (att->ring && thermocline_ring_is_ready(att->ring))
		events |= EPOLLIN | EPOLLRDNORM;
	spin_unlock(&att->ring_lock);
	if (READ_ONCE(att->gone))
		events |= EPOLLHUP;
	return events;
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
	spin_lock_init(&att->ring_lock);
	spin_lock_init(&att->totals_lock);
	init_waitqueue_head(&att->wait);
	file->private_data = att;
	return nonseekable_open(inode, file);
}

static int device_release(struct inode *inode, struct file *file)
{
	struct thermocline_attachment *att = file->private_data;

	if (att->thread)
		thermocline_thread_stop(att);
	if (att->ring)
		thermocline_ring_put(att->ring);
	if (att->mm) {
		mmdrop(att->mm);
		atomic_dec(&attachments);
	}
	vfree(att->bounce);
	kvfree(att);
	return 0;
}

static const struct file_operations device_operations = {
	.owner = THIS_MODULE, /* an open file keeps the module in place */
	.open = device_open,
	.release = device_release,
	.mmap = device_mmap,
	.poll = device_poll,
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
