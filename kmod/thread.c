// SPDX-License-Identifier: GPL-2.0
/*
 * Scans an address space by itself, round after round, into the attachment's ring.
 *
 * The thread walks as a SCAN does, through thermocline_walk(), and owns what that needs of the
 * attachment for as long as it is there; so it takes no lock that an ioctl holds, and an ioctl can wait
 * for it to end. A new plan reaches it through one pointer that both sides exchange.
 *
 * It ends when it is told to, and when the address space is gone. SIGKILL, which only this file sends,
 * cuts short a wait for the mmap lock of somebody who doesn't let go of it.
 */
#include <linux/freezer.h>
#include <linux/hrtimer.h>
#include <linux/kthread.h>
#include <linux/mm.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>
#include <linux/sched/task.h>
#include <linux/slab.h>
#include <linux/timekeeping.h>

#include "module.h"

/*
 * It sleeps after each round, however late it is: then nothing is a busy loop, and the scheduler has
 * brought its count of CPU time up to date, which it does at ticks and when a task sleeps.
 */
#define MIN_REST_NS (100 * NSEC_PER_USEC)
/* Between rounds it looks so often whether the address space is still used by anybody; seldom when
 * there is no CPU time left for it.
 */
#define CHECK_NS NSEC_PER_SEC
#define SELDOM_CHECK_NS (10 * NSEC_PER_SEC)
/* CPU time that a look takes at least. */
#define LOOK_NS (20 * NSEC_PER_USEC)
/* CPU time that is set aside for one at most; none takes so long. */
#define MAX_LOOK_NS NSEC_PER_SEC
#define SLACK_NS (50 * NSEC_PER_USEC)
#define NEVER U64_MAX

/**
 * struct thermocline_thread - the thread of an attachment
 * @task: with a reference
 * @att: its attachment, which outlives it
 * @ring: where records go; the attachment's, which stays as long as the thread
 * @wake: the thread sleeps here
 * @next: plan that takes over after this round, or NULL; exchanged
 * @plan: of this round
 * @epoch: of the next round
 * @asked: a round was asked for and hasn't begun
 * @due: when the next round is to begin, NEVER until asked for
 * @credit: CPU time that may be taken now, nanoseconds; negative = owed
 * @credited: when @credit was brought up to date
 * @charged: CPU time that was taken off it
 */
struct thermocline_thread {
	struct task_struct *task;
	struct thermocline_attachment *att;
	struct thermocline_ring *ring;
	wait_queue_head_t wake;
	struct thermocline_plan *next;
	struct thermocline_plan *plan;
	u64 epoch;
	bool asked;
	u64 due;
	s64 credit;
	u64 credited;
	u64 charged;
};

void thermocline_plan_free(struct thermocline_plan *plan)
{
	if (!plan)
		return;
	kvfree(plan->ranges);
	kfree(plan);
}

/* ------------------------------------------------------------------ sleeping ------------------- */

static bool is_told_to_stop(void)
{
	return kthread_freezable_should_stop(NULL) || fatal_signal_pending(current);
}

/* Until @until, or a new plan if @for_plan, or the end; may be shorter. */
static void sleep_until(struct thermocline_thread *thread, u64 until, bool for_plan)
{
	ktime_t expires = ns_to_ktime(until);
	DEFINE_WAIT(wait);

	prepare_to_wait(&thread->wake, &wait, TASK_INTERRUPTIBLE | TASK_FREEZABLE);
	if (!kthread_should_stop() && !(for_plan && READ_ONCE(thread->next)))
		schedule_hrtimeout_range(&expires, SLACK_NS, HRTIMER_MODE_ABS);
	finish_wait(&thread->wake, &wait);
}

/* ------------------------------------------------------------------ one round ------------------ */

static void count_pass(struct thermocline_attachment *att, const struct thermocline_scan *scan,
		       bool whole)
{
	struct thermocline_stats *totals = &att->totals;

	spin_lock(&att->totals_lock);
	totals->passes += whole;
	totals->entries += scan->entries;
	totals->accessed += scan->accessed;
	totals->records += scan->records;
	totals->skipped_pages += scan->skipped_pages;
	totals->walk_ns += scan->elapsed_ns;
	totals->max_lock_ns = max(totals->max_lock_ns, scan->max_lock_ns);
	totals->lock_drops += scan->lock_drops;
	spin_unlock(&att->totals_lock);
}

static int run_pass(struct thermocline_thread *thread, u32 pass)
{
	const struct thermocline_schedule *schedule = &thread->plan->schedule;
	struct thermocline_attachment *att = thread->att;
	struct thermocline_ring *ring = thread->ring;
	/* Nobody else changes these of the ring. */
	const u64 dropped_records = ring->dropped_records, dropped_bytes = ring->dropped_bytes;
	const u64 began = ktime_get_ns();
	/* The first pass tells what "as last told" in the others refers to, unless an earlier round did. */
	const bool whole = !pass && !(schedule->flags & THERMOCLINE_SCHEDULE_PRUNE_FIRST);
	struct thermocline_scan scan = {
		.flags = schedule->flags & THERMOCLINE_SCAN_FLAGS_ALL &
			 ~(whole ? THERMOCLINE_SCAN_PRUNE : 0),
		.range_count = schedule->range_count,
		.epoch = thread->epoch,
	};
	struct thermocline_mark mark;
	const int err = thermocline_walk(att, &scan, thread->plan->ranges, &ring->sink);

	count_pass(att, &scan, !err);
	if (err)
		return err;
	mark = (struct thermocline_mark){
		.magic = cpu_to_le32(THERMOCLINE_MARK_MAGIC),
		.version = cpu_to_le16(THERMOCLINE_MARK_VERSION),
		.header_size = cpu_to_le16(sizeof(mark)),
		.size = cpu_to_le32(sizeof(mark)),
		.flags = cpu_to_le32(scan.flags & THERMOCLINE_SCAN_CLEAR ? THERMOCLINE_RECORD_CLEARED : 0),
		.asid = cpu_to_le64(att->asid),
		.epoch = cpu_to_le64(thread->epoch),
		.sequence = cpu_to_le64(att->sequence),
		.began_ns = cpu_to_le64(began),
		.elapsed_ns = cpu_to_le64(scan.elapsed_ns),
		.window_ns = cpu_to_le64(scan.window_ns),
		.entries = cpu_to_le64(scan.entries),
		.accessed = cpu_to_le64(scan.accessed),
		.skipped_pages = cpu_to_le64(scan.skipped_pages),
		.max_lock_ns = cpu_to_le64(scan.max_lock_ns),
		.records = cpu_to_le64(scan.records),
		.dropped_records = cpu_to_le64(ring->dropped_records - dropped_records),
		.bytes = cpu_to_le64(scan.bytes - (ring->dropped_bytes - dropped_bytes)),
		.pass = cpu_to_le32(pass),
		.windows = cpu_to_le32(schedule->windows),
	};
	thermocline_ring_mark(ring, &mark, pass == schedule->windows);
	return 0;
}

static int run_round(struct thermocline_thread *thread)
{
	const struct thermocline_schedule *schedule = &thread->plan->schedule;
	struct thermocline_attachment *att = thread->att;
	u32 pass;
	int err;

	for (pass = 0; pass <= schedule->windows; pass++) {
		const u64 until = ktime_get_ns() + schedule->window_ns;

		while (pass && ktime_get_ns() < until && !is_told_to_stop())
			sleep_until(thread, until, false);
		if (is_told_to_stop())
			return -EINTR;
		err = run_pass(thread, pass);
		if (err)
			return err;
	}
	thread->epoch++;
	spin_lock(&att->totals_lock);
	att->totals.rounds++;
	spin_unlock(&att->totals_lock);
	return 0;
}

/* ------------------------------------------------------------------ between rounds ------------- */

/* @began: when the last round did. */
static void take_plan(struct thermocline_thread *thread, struct thermocline_plan *plan, u64 began,
		      u64 now)
{
	const struct thermocline_schedule *schedule = &plan->schedule;

	thermocline_plan_free(thread->plan);
	thread->plan = plan;
	thread->epoch = schedule->epoch;
	thread->asked |= !!(schedule->flags & THERMOCLINE_SCHEDULE_ROUND);
	thread->due = schedule->period_ns ? began + schedule->period_ns : NEVER;
	if (thread->asked)
		thread->due = now;
	thread->credit = min_t(s64, thread->credit, schedule->burst_ns);
	set_user_nice(current, schedule->nice);
}

/* Brings the credit up to @now; the CPU time is right as of the last sleep. */
static void settle(struct thermocline_thread *thread, u64 now)
{
	const struct thermocline_schedule *schedule = &thread->plan->schedule;
	const u64 cpu = current->se.sum_exec_runtime;
	/* Not more than the product can hold; a longer time is one that the machine slept. */
	const u64 passed = min_t(u64, now - thread->credited, 1000 * NSEC_PER_SEC);

	if (schedule->budget_ppm) {
		thread->credit += div_u64(passed * schedule->budget_ppm, 1000000);
		thread->credit -= cpu - thread->charged;
		thread->credit = min_t(s64, thread->credit, schedule->burst_ns);
	}
	thread->credited = now;
	thread->charged = cpu;
}

/* When what is owed, and @more, will have come in. */
static u64 allowed(const struct thermocline_thread *thread, u64 now, u64 more)
{
	const struct thermocline_schedule *schedule = &thread->plan->schedule;

	if (!schedule->budget_ppm || thread->credit >= 0)
		return now;
	return now + div_u64(more - thread->credit, schedule->budget_ppm) * 1000000 + NSEC_PER_MSEC;
}

/* Sleeps until the next round is to begin and may. Return: 0, -EINTR, -ESRCH */
static int rest(struct thermocline_thread *thread, u64 began)
{
	struct thermocline_attachment *att = thread->att;
	u64 now = ktime_get_ns(), until = now + MIN_REST_NS, may, held = 0, look = LOOK_NS;
	struct thermocline_plan *plan;

	for (;;) {
		sleep_until(thread, until, true);
		if (is_told_to_stop())
			return -EINTR;
		if (!atomic_read(&att->mm->mm_users))
			return -ESRCH;
		now = ktime_get_ns();
		settle(thread, now);
		plan = xchg(&thread->next, NULL);
		if (plan)
			take_plan(thread, plan, began, now);
		may = allowed(thread, now, look);
		if (may > now) {
			/*
			 * This look has to be paid for as well, and what it takes is known only after the
			 * next sleep. More is set aside each time, so that in the end it is enough.
			 */
			look = min_t(u64, 2 * look, MAX_LOOK_NS);
			if (thread->due <= now && !held)
				held = now; /* only the budget is in the way */
			until = min(max(thread->due, may), now + SELDOM_CHECK_NS);
		} else if (thread->due > now) {
			until = min(thread->due, now + CHECK_NS);
		} else {
			break;
		}
	}
	if (held) {
		spin_lock(&att->totals_lock);
		att->totals.stretched_ns += now - held;
		spin_unlock(&att->totals_lock);
	}
	return 0;
}

/* ------------------------------------------------------------------ the thread ----------------- */

static int thread_main(void *data)
{
	struct thermocline_thread *thread = data;
	struct thermocline_attachment *att = thread->att;
	u64 began = ktime_get_ns();
	int err;

	allow_kernel_signal(SIGKILL);
	set_freezable();
	thread->credited = began;
	thread->credit = thread->plan->schedule.burst_ns;
	set_user_nice(current, thread->plan->schedule.nice);
	thread->due = thread->asked || thread->plan->schedule.period_ns ? began : NEVER;
	for (;;) {
		err = rest(thread, began);
		if (err)
			break;
		began = ktime_get_ns();
		thread->asked = false;
		thread->due = thread->plan->schedule.period_ns ?
				      began + thread->plan->schedule.period_ns :
				      NEVER;
		err = run_round(thread);
		if (err)
			break;
	}
	if (err == -ESRCH) {
		WRITE_ONCE(att->gone, true);
		wake_up_interruptible_poll(&att->wait, EPOLLHUP);
	}
	return 0; /* whoever stops it holds a reference to the task */
}

int thermocline_thread_create(struct thermocline_attachment *att, struct thermocline_ring *ring,
			      struct thermocline_plan *plan)
{
	struct thermocline_thread *thread = kzalloc(sizeof(*thread), GFP_KERNEL_ACCOUNT);
	struct task_struct *task;

	if (!thread)
		return -ENOMEM;
	thread->att = att;
	thread->ring = ring;
	init_waitqueue_head(&thread->wake);
	thread->plan = plan;
	thread->epoch = plan->schedule.epoch;
	thread->asked = plan->schedule.flags & THERMOCLINE_SCHEDULE_ROUND;
	task = kthread_create(thread_main, thread, "tcscan/%d", att->pid);
	if (IS_ERR(task)) {
		kfree(thread);
		return PTR_ERR(task);
	}
	thread->task = get_task_struct(task);
	att->thread = thread;
	return 0;
}

void thermocline_thread_run(struct thermocline_thread *thread)
{
	wake_up_process(thread->task);
}

void thermocline_thread_configure(struct thermocline_thread *thread, struct thermocline_plan *plan)
{
	struct thermocline_plan *missed = xchg(&thread->next, NULL);

	/* A round that was asked for and hasn't begun is still wanted. */
	if (missed)
		plan->schedule.flags |= missed->schedule.flags & THERMOCLINE_SCHEDULE_ROUND;
	thermocline_plan_free(missed);
	xchg(&thread->next, plan);
	wake_up_interruptible(&thread->wake);
}

void thermocline_thread_stop(struct thermocline_attachment *att)
{
	struct thermocline_thread *thread = att->thread;

	send_sig(SIGKILL, thread->task, 1);
	kthread_stop(thread->task);
	/* Only this thread's end made the count final. */
	att->totals.cpu_ns += thread->task->se.sum_exec_runtime;
	put_task_struct(thread->task);
	thermocline_plan_free(thread->plan);
	thermocline_plan_free(thread->next);
	kfree(thread);
	att->thread = NULL;
}

void thermocline_thread_stats(struct thermocline_attachment *att, struct thermocline_stats *stats)
{
	const struct thermocline_thread *thread = att->thread;

	spin_lock(&att->totals_lock);
	*stats = att->totals;
	spin_unlock(&att->totals_lock);
	if (thread) {
		stats->state = THERMOCLINE_STATE_RUNNING;
		stats->tid = task_pid_vnr(thread->task);
		stats->cpu_ns += READ_ONCE(thread->task->se.sum_exec_runtime);
	}
	if (READ_ONCE(att->gone)) {
		stats->state = THERMOCLINE_STATE_GONE;
		stats->tid = 0;
	}
}
