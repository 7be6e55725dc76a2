//! The guarantees of the job engine for every walk.

use std::time::Duration;

use encx::Clock;
use encx::jobs::{Job, JobEnd, JobEvent, JobReport, JobRun};
use encx::store::{JobTally, KeyStore};
use encx_test_support::{HarnessExt, settle};
use encx_testkit::Harness;

use super::support::Numbers;

/// Half a minute, after which another worker takes over a dead worker's range.
const CLAIM: Duration = Duration::from_secs(30);

/// A worker of the job, in its own process, with ranges of ten.
async fn worker(harness: &Harness, walk: &Numbers) -> Job<Numbers> {
    let crypto = harness.process().await;
    Job::new(&crypto, "count", walk.clone()).range_size(10)
}

async fn finish(harness: &Harness, job: Job<Numbers>) -> JobReport {
    harness.in_time(job.run()).await
}

/// Polls a run until no more events occur by themselves, and returns them.
async fn drive(run: &mut JobRun) -> Vec<JobEvent> {
    let mut events = Vec::new();
    loop {
        tokio::select! {
            biased;
            event = run.next_event() => match event {
                Some(event) => events.push(event),
                None => return events,
            },
            () = settle() => return events,
        }
    }
}

fn tally(changed: u64, unchanged: u64, failed: u64) -> JobTally {
    JobTally::new(changed, unchanged, failed)
}

#[tokio::test]
async fn a_worker_goes_through_all_once_and_says_so() {
    let harness = Harness::new().await;
    let walk = Numbers::new(25).failing([7]);
    let mut run = worker(&harness, &walk).await.start();
    let events = drive(&mut run).await;
    let names: Vec<_> = events.iter().map(|event| format!("{event:?}")).collect();
    assert!(names[0].starts_with("Started"), "{names:?}");
    assert!(names.last().unwrap().starts_with("Finished"), "{names:?}");
    let ranges = events
        .iter()
        .filter(|event| matches!(event, JobEvent::RangeDone { .. }));
    assert_eq!(ranges.count(), 3);
    let report = run.report().await;
    assert_eq!((report.worker, report.run), (tally(24, 0, 1), tally(24, 0, 1)));
    assert_eq!(report.failures[0].to_string(), "number 7: never");
    assert!(matches!(report.ended_by, JobEnd::Finished) && !report.is_complete());
    assert_eq!(
        report.to_string(),
        "finished; 24 changed, 0 unchanged, 1 failed\nnumber 7: never"
    );
    // Once it is finished, the same name starts again.
    let again = finish(&harness, worker(&harness, &walk).await).await;
    assert_eq!(again.run, tally(0, 24, 1));
}

#[tokio::test]
async fn nothing_to_do_is_done_at_once() {
    let harness = Harness::new().await;
    let report = finish(&harness, worker(&harness, &Numbers::new(0)).await).await;
    assert!(report.is_complete());
    assert_eq!(report.run, tally(0, 0, 0));
}

#[tokio::test]
async fn workers_share_the_ranges_and_each_item_is_worked_on_once() {
    let harness = Harness::new().await;
    let walk = Numbers::new(1003).taking(harness.clock(), Duration::from_secs(1));
    let (a, b, c) = (
        worker(&harness, &walk).await,
        worker(&harness, &walk).await,
        worker(&harness, &walk).await,
    );
    let all = async { tokio::join!(a.run(), b.run(), c.run()) };
    let (a, b, c) = harness.in_time(all).await;
    assert!(
        walk.changed().iter().all(|times| *times == 1),
        "{:?}",
        walk.changed()
    );
    let mut sum = JobTally::default();
    for report in [&a, &b, &c] {
        assert!(report.is_complete(), "{report}");
        assert_eq!(report.run, tally(1003, 0, 0));
        assert!(report.worker.changed > 100, "{:?}", report.worker);
        sum += report.worker;
    }
    assert_eq!(sum, tally(1003, 0, 0));
}

#[tokio::test]
async fn what_a_dropped_worker_had_in_hand_is_taken_over_when_its_claim_ends() {
    let harness = Harness::new().await;
    let walk = Numbers::new(100);
    walk.hold(true);
    let mut dead = worker(&harness, &walk).await.start();
    drive(&mut dead).await;
    drop(dead);
    assert_eq!(walk.changed(), [0; 100]);

    let mut heir = worker(&harness, &walk.unheld()).await.start();
    let events = drive(&mut heir).await;
    assert!(matches!(events.last(), Some(JobEvent::Waiting)), "{events:?}");
    // Three ranges of ten were claimed.
    assert_eq!(walk.changed().iter().sum::<u32>(), 70);
    harness.clock().advance(CLAIM - Duration::from_millis(1)).await;
    drive(&mut heir).await;
    assert_eq!(walk.changed().iter().sum::<u32>(), 70);
    harness.clock().advance(Duration::from_secs(2)).await;
    let report = harness.in_time(heir.report()).await;
    assert!(report.is_complete());
    assert_eq!(report.run, tally(100, 0, 0));
    assert_eq!(walk.changed(), [1; 100]);
}

#[tokio::test]
async fn a_claim_is_kept_for_as_long_as_the_work_takes() {
    let harness = Harness::new().await;
    let slow = Numbers::new(10).taking(harness.clock(), CLAIM * 5);
    let (a, b) = (worker(&harness, &slow).await, worker(&harness, &slow).await);
    let (a, b) = harness.in_time(async { tokio::join!(a.run(), b.run()) }).await;
    assert_eq!(slow.changed(), [1; 10]);
    assert_eq!(a.worker.changed + b.worker.changed, 10);
}

#[tokio::test]
async fn a_worker_that_slept_through_its_claim_leaves_the_range_to_who_took_it() {
    let harness = Harness::new().await;
    let walk = Numbers::new(30);
    walk.hold(true);
    let mut sleeper = worker(&harness, &walk).await.start();
    drive(&mut sleeper).await;
    harness.clock().advance(CLAIM).await;
    let other = walk.unheld();
    other.hold(true);
    let mut heir = worker(&harness, &other).await.start();
    drive(&mut heir).await;
    // The sleeper wakes while the heir works, and finds its ranges claimed by another worker.
    let events = drive(&mut sleeper).await;
    let lost = events.iter().filter(|event| matches!(event, JobEvent::RangeLost));
    assert_eq!(lost.count(), 3, "{events:?}");
    other.hold(false);
    walk.hold(false);
    let both = async { tokio::join!(sleeper.report(), heir.report()) };
    let (sleeper, heir) = harness.in_time(both).await;
    assert_eq!((sleeper.worker, heir.worker), (tally(0, 0, 0), tally(30, 0, 0)));
    assert_eq!(walk.changed(), [1; 30]);
}

#[tokio::test]
async fn a_stop_finishes_what_is_in_hand_and_the_next_run_goes_on_there() {
    let harness = Harness::new().await;
    let walk = Numbers::new(100);
    walk.hold(true);
    let mut run = worker(&harness, &walk).await.start();
    drive(&mut run).await;
    run.stopper().stop();
    walk.hold(false);
    let report = run.report().await;
    assert!(matches!(report.ended_by, JobEnd::Stopped), "{report}");
    assert_eq!((report.worker, report.run), (tally(30, 0, 0), tally(30, 0, 0)));
    let rest = finish(&harness, worker(&harness, &walk).await).await;
    assert!(rest.is_complete());
    assert_eq!((rest.worker, rest.run), (tally(70, 0, 0), tally(100, 0, 0)));
    assert_eq!(walk.changed(), [1; 100]);
}

#[tokio::test]
async fn a_throttle_bounds_the_items_a_second() {
    let harness = Harness::new().await;
    let walk = Numbers::new(100);
    let job = worker(&harness, &walk).await.range_size(1000).throttle(10);
    let mut run = job.start();
    let mut seconds = 0;
    loop {
        drive(&mut run).await;
        let done = walk.changed().iter().sum::<u32>();
        assert!(done <= (seconds + 1) * 10, "{done} after {seconds} s");
        if done == 100 {
            break;
        }
        harness.clock().advance(Duration::from_secs(1)).await;
        seconds += 1;
    }
    assert_eq!(seconds, 9);
    assert_eq!(run.report().await.run, tally(100, 0, 0));
}

#[tokio::test]
async fn large_items_are_worked_on_few_at_a_time_and_small_ones_by_the_range() {
    let harness = Harness::new().await;
    let run = async |walk: &Numbers, range: u32, max_memory: Option<u64>| {
        let mut job = worker(&harness, walk).await.range_size(range);
        if let Some(bytes) = max_memory {
            job = job.max_memory(bytes);
        }
        let report = finish(&harness, job.job_name(format!("{max_memory:?}"))).await;
        assert!(report.is_complete(), "{report}");
        walk.pieces()
    };
    // A row of 200 bytes; rows of 30 MiB, of which two fit into the default of 64 MiB; and one that fits into no bound.
    let second = Duration::from_secs(1);
    let small = Numbers::new(1500).weighing(2600).taking(harness.clock(), second);
    assert_eq!(run(&small, 500, None).await, (vec![500; 3], 1500));
    let large = Numbers::new(20)
        .weighing(30 << 20)
        .taking(harness.clock(), second);
    assert_eq!(run(&large, 5, None).await, (vec![1; 20], 2));
    let huge = Numbers::new(5).weighing(1 << 40).taking(harness.clock(), second);
    assert_eq!(run(&huge, 1, None).await, (vec![1; 5], 1));
    let bounded = Numbers::new(60).weighing(1 << 20).taking(harness.clock(), second);
    let (pieces, most) = run(&bounded, 20, Some(12 << 20)).await;
    assert_eq!((pieces, most), (vec![4; 15], 12));
}

#[tokio::test]
async fn a_dry_run_counts_and_changes_nothing_and_shares_nothing() {
    let harness = Harness::new().await;
    let walk = Numbers::new(25);
    let report = finish(&harness, worker(&harness, &walk).await.dry_run()).await;
    assert_eq!(report.run, tally(25, 0, 0));
    assert_eq!(walk.changed(), [0; 25]);
    let shared = harness.store().jobs().unwrap();
    assert_eq!(shared.job("count").await.unwrap(), None);
}

#[tokio::test]
async fn what_fails_for_a_while_is_tried_again() {
    let harness = Harness::new().await;
    let walk = Numbers::new(30);
    walk.fail_for_now([3, 15], 4);
    walk.fail_reads(2);
    let mut run = worker(&harness, &walk).await.start();
    let mut retries = 0;
    harness
        .in_time(async {
            while let Some(event) = run.next_event().await {
                retries += u32::from(matches!(event, JobEvent::Retrying { .. }));
            }
        })
        .await;
    assert!(run.report().await.is_complete());
    assert_eq!(walk.changed(), [1; 30]);
    assert_eq!(retries, 4 + 4 + 2);
}

#[tokio::test]
async fn what_stays_out_of_reach_while_others_go_through_is_reported_and_holds_up_nothing() {
    let harness = Harness::new().await;
    let walk = Numbers::new(30);
    walk.fail_for_now([3], u32::MAX);
    let report = finish(&harness, worker(&harness, &walk).await).await;
    assert!(matches!(report.ended_by, JobEnd::Finished));
    assert_eq!(report.run, tally(29, 0, 1));
    assert_eq!(report.failures[0].what, "number 3");
    assert!(report.failures[0].error.is_retryable());
}

#[tokio::test]
async fn where_nothing_goes_through_the_worker_gives_up_and_leaves_the_range_to_others_at_once() {
    let harness = Harness::new().await;
    let walk = Numbers::new(30);
    walk.fail_for_now(0..30, u32::MAX);
    let report = finish(&harness, worker(&harness, &walk).await).await;
    assert!(matches!(&report.ended_by, JobEnd::GaveUp(error) if error.is_retryable()));
    assert_eq!(report.run, tally(0, 0, 0));
    walk.fail_for_now(0..30, 0);
    let began = harness.clock().elapsed();
    let report = finish(&harness, worker(&harness, &walk).await).await;
    assert_eq!(report.run, tally(30, 0, 0));
    assert!(harness.clock().elapsed() - began < Duration::from_secs(1));
}

#[tokio::test]
async fn a_stop_ends_the_tries_at_what_is_out_of_reach() {
    let harness = Harness::new().await;
    let walk = Numbers::new(10);
    walk.fail_for_now(0..10, u32::MAX);
    let mut run = worker(&harness, &walk).await.start();
    drive(&mut run).await;
    run.stopper().stop();
    let report = run.report().await;
    assert!(matches!(report.ended_by, JobEnd::Stopped), "{report}");
}

#[tokio::test]
async fn the_key_store_may_fail_for_a_while() {
    let harness = Harness::new().await;
    let walk = Numbers::new(30).taking(harness.clock(), Duration::from_secs(2));
    let mut run = worker(&harness, &walk).await.start();
    drive(&mut run).await;
    harness.store().set_unavailable(true);
    for _ in 0..4 {
        harness.clock().advance(Duration::from_secs(1)).await;
        drive(&mut run).await;
    }
    harness.store().set_unavailable(false);
    let report = harness.in_time(run.report()).await;
    assert!(report.is_complete(), "{report}");
    assert_eq!(walk.changed(), [1; 30]);

    harness.store().set_unavailable(true);
    let report = finish(&harness, worker(&harness, &walk).await).await;
    assert!(matches!(report.ended_by, JobEnd::GaveUp(_)), "{report}");
}

#[tokio::test]
async fn another_job_of_the_same_name_replaces_this_one() {
    let harness = Harness::new().await;
    let walk = Numbers::new(50);
    walk.hold(true);
    let mut run = worker(&harness, &walk).await.start();
    drive(&mut run).await;
    let mut other = walk.unheld();
    other.plan = "other numbers".to_owned();
    let report = finish(&harness, worker(&harness, &other).await).await;
    assert_eq!(report.run, tally(50, 0, 0));
    walk.hold(false);
    let report = harness.in_time(run.report()).await;
    assert!(matches!(report.ended_by, JobEnd::Replaced), "{report}");
    assert_eq!(report.worker, tally(0, 0, 0));
}

/// Leaves a worker waiting for the last ranges of a run, and lets another finish them.
async fn finished_by_others(harness: &Harness, walk: &Numbers) -> JobRun {
    let mut waiting = worker(harness, walk).await.start();
    let mut other = worker(harness, walk).await.start();
    walk.hold(true);
    drive(&mut other).await;
    let events = drive(&mut waiting).await;
    assert!(matches!(events.last(), Some(JobEvent::Waiting)), "{events:?}");
    walk.hold(false);
    // The clock stands still, so the waiting worker does not check again.
    let report = other.report().await;
    assert!(matches!(report.ended_by, JobEnd::Finished), "{report}");
    waiting
}

#[tokio::test]
async fn a_worker_whose_run_was_finished_and_begun_again_says_that() {
    let harness = Harness::new().await;
    let walk = Numbers::new(30);
    let waiting = finished_by_others(&harness, &walk).await;
    let again = walk.unheld();
    again.hold(true);
    let mut next = worker(&harness, &again).await.start();
    drive(&mut next).await;
    let report = harness.in_time(waiting.report()).await;
    assert!(matches!(report.ended_by, JobEnd::BegunAgain), "{report}");
    // The failures of other workers are unknown, so the report must not be relied on.
    assert!(!report.is_complete());
    assert_eq!((report.worker, report.run), (tally(0, 0, 0), tally(0, 0, 0)));
    assert!(report.to_string().contains("begun again"), "{report}");
    again.hold(false);
    assert!(harness.in_time(next.report()).await.is_complete());
}

#[tokio::test]
async fn a_worker_whose_job_was_finished_twice_reports_the_last_run() {
    let harness = Harness::new().await;
    let walk = Numbers::new(30).failing([7]);
    let waiting = finished_by_others(&harness, &walk).await;
    assert_eq!(worker(&harness, &walk).await.run().await.run, tally(0, 29, 1));
    let report = harness.in_time(waiting.report()).await;
    assert!(matches!(report.ended_by, JobEnd::Finished), "{report}");
    assert_eq!((report.worker, report.run), (tally(0, 0, 0), tally(0, 29, 1)));
    assert!(!report.is_complete());
}

#[tokio::test]
async fn a_worker_that_stopped_says_so_although_others_began_again() {
    let harness = Harness::new().await;
    let walk = Numbers::new(30);
    let waiting = finished_by_others(&harness, &walk).await;
    let again = walk.unheld();
    again.hold(true);
    let mut next = worker(&harness, &again).await.start();
    drive(&mut next).await;
    waiting.stopper().stop();
    let report = harness.in_time(waiting.report()).await;
    assert!(matches!(report.ended_by, JobEnd::Stopped), "{report}");
}

#[tokio::test]
async fn a_name_that_cannot_be_kept_is_said_so() {
    let harness = Harness::new().await;
    let job = worker(&harness, &Numbers::new(1)).await.job_name("");
    assert!(matches!(finish(&harness, job).await.ended_by, JobEnd::GaveUp(_)));
}
