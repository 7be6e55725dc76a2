//! Jobs that many processes share.

use std::sync::Arc;
use std::time::Duration;

use encx_core::store::{
    JobFault, JobFaults, JobRange, JobStatus, JobTally, ProcessId, RangeClaim, StoreError,
};

use super::support::{LONG, RACERS, SHORT, Store, handles, jobs, now, outwait, race};
use super::{StoreFixture, StoreOffer};

/// Claims the next range.
async fn extend(
    store: &Store,
    run: &JobStatus,
    after: Option<&[u8]>,
    upto: Option<&[u8]>,
    holder: ProcessId,
    term: Duration,
) -> Option<JobRange> {
    let moved = jobs(store).extend_job(run, after, upto, holder, term).await;
    moved.unwrap()
}

/// The status of a run that has just begun.
fn begun(name: &str, run: i64, plan: &str) -> JobStatus {
    let mut status = JobStatus::new(name, run);
    plan.clone_into(&mut status.plan);
    status
}

/// The status of a job, without the time of the last completed range.
async fn status(store: &Store, name: &str) -> JobStatus {
    let mut status = jobs(store).job(name).await.unwrap().unwrap();
    status.completed_at = None;
    status
}

async fn claim(store: &Store, run: &JobStatus, holder: ProcessId) -> RangeClaim {
    jobs(store).claim_range(run, holder, LONG).await.unwrap()
}

async fn complete(store: &Store, range: &JobRange, tally: JobTally) -> bool {
    jobs(store)
        .complete_range(range, tally, &JobFaults::default())
        .await
        .unwrap()
}

pub(super) async fn a_job_is_joined_or_restarted(fixture: Arc<dyn StoreFixture>) {
    let Some([first, second]) = handles(&*fixture, StoreOffer::Jobs).await else {
        return;
    };
    let holder = ProcessId::random();
    assert_eq!(jobs(&first).job("rewrap").await.unwrap(), None);
    let run = jobs(&first).open_job("rewrap", "to kek-2").await.unwrap();
    assert_eq!(run, begun("rewrap", run.run, "to kek-2"));
    assert_eq!(status(&second, "rewrap").await, run);
    let range = extend(&first, &run, None, Some(b"m"), holder, LONG)
        .await
        .unwrap();
    let tally = JobTally::new(1, 2, 3);
    assert!(complete(&first, &range, tally).await);

    let mut joined = jobs(&second).open_job("rewrap", "to kek-2").await.unwrap();
    assert!(joined.completed_at.take().is_some());
    let mut expected = run.clone();
    expected.frontier = Some(b"m".to_vec());
    expected.tally = tally;
    assert_eq!(joined, expected, "it goes on where it was");
    assert_eq!(status(&first, "rewrap").await, expected);
    let other = jobs(&second).open_job("another", "to kek-2").await.unwrap();
    assert_eq!(other, begun("another", other.run, "to kek-2"));

    // Another plan, and the same plan once the job is finished.
    for plan in ["to kek-3", ""] {
        let other = jobs(&second).open_job("rewrap", plan).await.unwrap();
        assert!(other.run > expected.run, "it is told from earlier ones");
        assert_eq!(other, begun("rewrap", other.run, plan));
        expected = other;
    }
    let range = extend(&first, &expected, None, None, holder, LONG).await.unwrap();
    assert!(complete(&first, &range, tally).await);
    assert!(status(&first, "rewrap").await.finished);
    let again = jobs(&first).open_job("rewrap", "").await.unwrap();
    assert!(again.run > expected.run);
    assert_eq!(again, begun("rewrap", again.run, ""));
}

pub(super) async fn one_of_sixteen_moves_the_frontier(fixture: Arc<dyn StoreFixture>) {
    let Some(stores) = handles::<4>(&*fixture, StoreOffer::Jobs).await else {
        return;
    };
    let run = jobs(&stores[0]).open_job("walk", "plan").await.unwrap();
    // An empty position is a position too, and not the beginning.
    let long = vec![0xff; 8192];
    let positions: [Option<&[u8]>; 6] = [
        None,
        Some(b""),
        Some(b"\0"),
        Some(&[0, 0xff, 0x27]),
        Some(&long),
        None,
    ];
    for (place, step) in positions.windows(2).enumerate() {
        let (after, upto) = (step[0].map(<[u8]>::to_vec), step[1].map(<[u8]>::to_vec));
        let claimed = claim(&stores[0], &run, ProcessId::random()).await;
        assert_eq!(claimed, RangeClaim::Frontier(after.clone()));
        let results = race(|number| {
            let store = stores[number % stores.len()].clone();
            let (run, after, upto) = (run.clone(), after.clone(), upto.clone());
            async move {
                let holder = ProcessId::random();
                extend(&store, &run, after.as_deref(), upto.as_deref(), holder, LONG)
                    .await
                    .inspect(|range| assert_eq!(range.holder, holder))
            }
        })
        .await;
        let winners: Vec<_> = results.into_iter().flatten().collect();
        assert_eq!(winners.len(), 1, "one is faster: {winners:?}");
        let mut expected = JobRange::new(&run, i64::try_from(place).unwrap() + 1, winners[0].holder);
        (expected.after, expected.upto) = (after.clone(), upto.clone());
        assert_eq!(winners[0], expected);
        let late = extend(&stores[1], &run, after.as_deref(), None, winners[0].holder, LONG).await;
        assert_eq!(late, None, "the frontier is not at {after:?} any more");
    }
    let end = status(&stores[1], "walk").await;
    assert_eq!((end.frontier.as_ref(), end.at_end), (Some(&long), true));
    for after in positions {
        let more = extend(&stores[0], &run, after, Some(b"more"), ProcessId::random(), LONG).await;
        assert_eq!(more, None, "nothing lies behind the end");
    }
    let claimed = claim(&stores[0], &run, ProcessId::random()).await;
    assert_eq!(claimed, RangeClaim::Wait, "others are at work");
}

pub(super) async fn an_abandoned_range_is_claimed_once(fixture: Arc<dyn StoreFixture>) {
    let Some(stores) = handles::<4>(&*fixture, StoreOffer::Jobs).await else {
        return;
    };
    let run = jobs(&stores[0]).open_job("walk", "plan").await.unwrap();
    let dead = ProcessId::random();
    let held = extend(&stores[0], &run, None, Some(b"a"), dead, LONG)
        .await
        .unwrap();
    let began = now(&stores[0]).await;
    let lost = extend(&stores[0], &run, Some(b"a"), Some(b"b"), dead, SHORT)
        .await
        .unwrap();
    // No other process gets it before its end.
    let mut found = claim(&stores[1], &run, ProcessId::random()).await;
    while found == RangeClaim::Frontier(Some(b"b".to_vec())) {
        tokio::time::sleep(SHORT / 10).await;
        found = claim(&stores[1], &run, ProcessId::random()).await;
    }
    let RangeClaim::Range(second) = found else {
        panic!("{found:?}");
    };
    let lasted = now(&stores[1]).await.as_micros() - began.as_micros();
    assert!(
        lasted >= i64::try_from(SHORT.as_micros()).unwrap(),
        "claimed after {lasted} µs"
    );
    let mut expected = lost.clone();
    expected.holder = second.holder;
    assert_eq!(second, expected);
    // The process that lost it gets `false`, and counts nothing.
    assert!(!jobs(&stores[0]).keep_range(&lost, LONG).await.unwrap());
    assert!(!complete(&stores[0], &lost, JobTally::new(1, 0, 0)).await);
    assert!(jobs(&stores[2]).keep_range(&second, SHORT).await.unwrap());
    outwait(&stores[0], SHORT).await;
    let claims = race(|number| {
        let store = stores[number % stores.len()].clone();
        let run = run.clone();
        async move { claim(&store, &run, ProcessId::random()).await }
    })
    .await;
    let mut third = Vec::new();
    for claimed in claims {
        match claimed {
            RangeClaim::Range(range) => third.push(range),
            other => assert_eq!(other, RangeClaim::Frontier(Some(b"b".to_vec()))),
        }
    }
    assert_eq!(third.len(), 1, "one claims it: {third:?}");
    assert_eq!((third[0].number, &third[0].upto), (lost.number, &lost.upto));
    assert!(!complete(&stores[0], &second, JobTally::new(1, 0, 0)).await);
    assert!(complete(&stores[3], &third[0], JobTally::new(0, 1, 0)).await);
    assert!(complete(&stores[3], &held, JobTally::new(0, 0, 1)).await);
    assert_eq!(status(&stores[0], "walk").await.tally, JobTally::new(0, 1, 1));
}

pub(super) async fn a_claim_is_kept(fixture: Arc<dyn StoreFixture>) {
    let Some([first, second]) = handles(&*fixture, StoreOffer::Jobs).await else {
        return;
    };
    let run = jobs(&first).open_job("walk", "plan").await.unwrap();
    let (one, two) = (ProcessId::random(), ProcessId::random());
    let range = extend(&first, &run, None, Some(b"a"), one, SHORT).await.unwrap();
    assert!(jobs(&first).keep_range(&range, LONG).await.unwrap());
    let late = extend(&first, &run, Some(b"a"), None, one, SHORT).await.unwrap();
    outwait(&first, SHORT).await;
    // Its term is over, but no other process has taken it.
    assert!(jobs(&second).keep_range(&late, LONG).await.unwrap());
    assert_eq!(claim(&second, &run, two).await, RangeClaim::Wait);

    let mut foreign = range.clone();
    foreign.holder = two;
    assert!(!jobs(&second).keep_range(&foreign, LONG).await.unwrap());
    assert!(!complete(&second, &foreign, JobTally::new(1, 0, 0)).await);
    let mut unknown = range.clone();
    unknown.number = 3;
    assert!(!jobs(&second).keep_range(&unknown, LONG).await.unwrap());
    assert!(!complete(&second, &unknown, JobTally::new(1, 0, 0)).await);
    assert!(complete(&first, &range, JobTally::default()).await);
    assert!(!jobs(&first).keep_range(&range, LONG).await.unwrap());
    assert_eq!(status(&first, "walk").await.tally, JobTally::default());
}

pub(super) async fn what_is_complete_counts_once(fixture: Arc<dyn StoreFixture>) {
    let Some([first, second]) = handles(&*fixture, StoreOffer::Jobs).await else {
        return;
    };
    let run = jobs(&first).open_job("walk", "plan").await.unwrap();
    let holder = ProcessId::random();
    let mut ranges = Vec::new();
    let positions: [Option<&[u8]>; 4] = [None, Some(b"a"), Some(b"b"), None];
    for step in positions.windows(2) {
        ranges.extend(extend(&first, &run, step[0], step[1], holder, LONG).await);
    }
    assert_eq!(ranges.len(), 3);
    // The last range is completed first: the job is not finished.
    let mut tally = JobTally::default();
    for (place, number) in [2, 0, 1].into_iter().enumerate() {
        let before = status(&second, "walk").await;
        assert!(!before.finished && before.at_end, "{before:?}");
        assert_eq!(claim(&second, &run, holder).await, RangeClaim::Wait);
        let done = JobTally::new(1 << place, 8 << place, 64 << place);
        assert!(complete(&first, &ranges[number], done).await);
        assert!(!complete(&second, &ranges[number], done).await, "it is complete");
        tally += done;
        assert_eq!(status(&second, "walk").await.tally, tally);
    }
    let end = status(&second, "walk").await;
    assert!(end.finished && end.at_end, "{end:?}");
    assert_eq!(claim(&first, &run, holder).await, RangeClaim::Finished);
    assert_eq!(
        extend(&first, &run, Some(b"b"), Some(b"c"), holder, LONG).await,
        None
    );
    for range in &ranges {
        assert!(!jobs(&first).keep_range(range, LONG).await.unwrap());
        assert!(!complete(&first, range, JobTally::new(1, 0, 0)).await);
    }
    assert_eq!(status(&second, "walk").await, end);
}

/// Each of several concurrent completions may believe that another is the last.
pub(super) async fn sixteen_complete_the_last_ranges(fixture: Arc<dyn StoreFixture>) {
    let Some(stores) = handles::<4>(&*fixture, StoreOffer::Jobs).await else {
        return;
    };
    for round in 0..4 {
        let name = format!("walk-{round}");
        let run = jobs(&stores[0]).open_job(&name, "plan").await.unwrap();
        let mut ranges = Vec::new();
        for number in 0..RACERS {
            let position = |number: usize| number.to_be_bytes().to_vec();
            let after = number.checked_sub(1).map(position);
            let upto = Some(position(number)).filter(|_| number + 1 < RACERS);
            let holder = ProcessId::random();
            let range = extend(&stores[0], &run, after.as_deref(), upto.as_deref(), holder, LONG).await;
            ranges.extend(range);
        }
        let completed = race(|number| {
            let store = stores[number % stores.len()].clone();
            let range = ranges[number].clone();
            async move { complete(&store, &range, JobTally::new(1, 1, 1)).await }
        })
        .await;
        assert!(completed.iter().all(|completed| *completed));
        let end = status(&stores[0], &name).await;
        let all = u64::try_from(RACERS).unwrap();
        assert_eq!(end.tally, JobTally::new(all, all, all));
        assert!(end.finished, "the last was noticed: {end:?}");
    }
}

pub(super) async fn a_replaced_run_is_over(fixture: Arc<dyn StoreFixture>) {
    let Some([first, second]) = handles(&*fixture, StoreOffer::Jobs).await else {
        return;
    };
    let holder = ProcessId::random();
    let old = jobs(&first).open_job("walk", "old").await.unwrap();
    // One held and one abandoned.
    let held = extend(&first, &old, None, Some(b"a"), holder, LONG)
        .await
        .unwrap();
    let lost = extend(&first, &old, Some(b"a"), Some(b"b"), holder, SHORT)
        .await
        .unwrap();
    outwait(&first, SHORT).await;
    let new = jobs(&second).open_job("walk", "new").await.unwrap();

    assert_eq!(claim(&first, &old, holder).await, RangeClaim::Finished);
    for after in [None, Some(&b"b"[..])] {
        assert_eq!(extend(&first, &old, after, Some(b"c"), holder, LONG).await, None);
    }
    for range in [&held, &lost] {
        assert!(!jobs(&first).keep_range(range, LONG).await.unwrap());
        assert!(!complete(&first, range, JobTally::new(1, 0, 0)).await);
    }
    assert_eq!(
        status(&first, "walk").await,
        new,
        "it left no trace in the new one"
    );
    let claimed = claim(&second, &new, holder).await;
    assert_eq!(claimed, RangeClaim::Frontier(None));
    // The same number in the new run is a different range.
    let range = extend(&second, &new, None, None, holder, LONG).await.unwrap();
    assert_eq!(range.number, held.number);
    assert!(!complete(&first, &held, JobTally::new(1, 0, 0)).await);
    assert!(complete(&second, &range, JobTally::default()).await);
    let gone = JobStatus::new("never opened", 1);
    assert_eq!(claim(&first, &gone, holder).await, RangeClaim::Finished);
    assert_eq!(extend(&first, &gone, None, None, holder, LONG).await, None);
}

/// Sixteen processes walk together, and each abandons every third range that it begins.
pub(super) async fn a_walk_of_many_misses_nothing(fixture: Arc<dyn StoreFixture>) {
    const STEPS: u8 = 60;
    let Some(stores) = handles::<4>(&*fixture, StoreOffer::Jobs).await else {
        return;
    };
    let run = jobs(&stores[0]).open_job("walk", "plan").await.unwrap();
    let completed = race(|number| {
        let store = stores[number % stores.len()].clone();
        let run = run.clone();
        async move {
            let holder = ProcessId::random();
            let mut completed = Vec::new();
            loop {
                let range = match jobs(&store).claim_range(&run, holder, LONG).await.unwrap() {
                    RangeClaim::Finished => return completed,
                    RangeClaim::Range(range) => range,
                    RangeClaim::Frontier(after) => {
                        let next = after.as_ref().map_or(0, |after| after[0] + 1);
                        let upto = Some(vec![next]).filter(|_| next + 1 < STEPS);
                        let (after, upto) = (after.as_deref(), upto.as_deref());
                        let dropped = next % 3 == 0;
                        let term = if dropped { SHORT / 5 } else { LONG };
                        match extend(&store, &run, after, upto, holder, term).await {
                            Some(range) if !dropped => range,
                            _ => continue,
                        }
                    }
                    _ => {
                        tokio::time::sleep(SHORT / 10).await;
                        continue;
                    }
                };
                assert!(complete(&store, &range, JobTally::new(1, 0, 0)).await);
                completed.push((range.after, range.upto));
            }
        }
    })
    .await;
    let mut ranges: Vec<_> = completed.into_iter().flatten().collect();
    ranges.sort();
    let steps: Vec<_> = (0..STEPS)
        .map(|step| {
            let after = step.checked_sub(1).map(|before| vec![before]);
            (after, Some(vec![step]).filter(|_| step + 1 < STEPS))
        })
        .collect();
    assert_eq!(ranges, steps, "each range is completed, and once");
    let end = status(&stores[0], "walk").await;
    assert_eq!(end.tally, JobTally::new(u64::from(STEPS), 0, 0));
    assert!(end.finished);
}

pub(super) async fn faults_are_kept_with_their_run(fixture: Arc<dyn StoreFixture>) {
    let Some([first, second]) = handles(&*fixture, StoreOffer::Jobs).await else {
        return;
    };
    let run = jobs(&first).open_job("verify", "plan").await.unwrap();
    let holder = ProcessId::random();
    let before = now(&first).await;
    let (mut ranges, mut expected) = (Vec::new(), JobFaults::default());
    for (number, upto) in [Some(&b"a"[..]), Some(b"b"), None].into_iter().enumerate() {
        let after = status(&first, "verify").await.frontier;
        let range = extend(&first, &run, after.as_deref(), upto, holder, LONG).await;
        let mut faults = JobFaults::default();
        for item in 0..8 {
            faults.add("damaged", &format!("users.ssn of row {number}-{item} \"' ü"));
        }
        if number == 1 {
            faults.add("missing-key", "users.ssn of row 7");
        }
        expected.merge(faults.clone());
        ranges.push((range.unwrap(), faults));
    }
    for (range, faults) in &ranges {
        let completed = jobs(&second).complete_range(range, JobTally::new(0, 1, 8), faults);
        assert!(completed.await.unwrap());
        // A lost range counts nothing.
        let again = jobs(&first).complete_range(range, JobTally::new(0, 1, 8), faults);
        assert!(!again.await.unwrap());
    }
    let end = jobs(&first).job("verify").await.unwrap().unwrap();
    assert_eq!(end.faults, expected);
    let damaged = end.faults.get("damaged").unwrap();
    assert_eq!(
        (damaged.items, damaged.examples.len()),
        (24, JobFaults::MAX_EXAMPLES)
    );
    let completed_at = end.completed_at.unwrap();
    assert!(before <= completed_at && completed_at <= now(&first).await);

    let again = jobs(&second).open_job("verify", "plan").await.unwrap();
    assert_eq!((&again.faults, again.completed_at), (&JobFaults::default(), None));
    // Counts saturate at the column's maximum.
    let mut many = JobFaults::default();
    let mut fault = JobFault::default();
    fault.items = u64::MAX;
    many.put("damaged", fault);
    for upto in [Some(&b"a"[..]), None] {
        let after = upto.is_none().then_some(&b"a"[..]);
        let range = extend(&first, &again, after, upto, holder, LONG).await.unwrap();
        let completed = jobs(&first).complete_range(&range, JobTally::default(), &many);
        assert!(completed.await.unwrap());
    }
    let items = status(&first, "verify")
        .await
        .faults
        .get("damaged")
        .unwrap()
        .items;
    assert!(items >= u64::try_from(i64::MAX).unwrap(), "{items}");
}

pub(super) async fn a_job_has_bounds(fixture: Arc<dyn StoreFixture>) {
    let Some([store]) = handles(&*fixture, StoreOffer::Jobs).await else {
        return;
    };
    let holder = ProcessId::random();
    fn refused<T: std::fmt::Debug>(result: &Result<T, StoreError>) {
        assert!(matches!(result, Err(StoreError::Invalid { .. })), "{result:?}");
    }
    for name in ["", "a\nb", "a\0", &"n".repeat(201)] {
        let run = JobStatus::new(name, 1);
        let range = JobRange::new(&run, 1, holder);
        refused(&jobs(&store).open_job(name, "plan").await);
        refused(&jobs(&store).job(name).await);
        refused(&jobs(&store).claim_range(&run, holder, LONG).await);
        refused(&jobs(&store).extend_job(&run, None, None, holder, LONG).await);
        refused(&jobs(&store).keep_range(&range, LONG).await);
        refused(
            &jobs(&store)
                .complete_range(&range, JobTally::default(), &JobFaults::default())
                .await,
        );
    }
    for plan in ["p\0", &"p".repeat(8193)] {
        refused(&jobs(&store).open_job("walk", plan).await);
    }
    let longest = "p\n".repeat(4096);
    let run = jobs(&store).open_job(&"n".repeat(200), &longest).await.unwrap();
    let joined = jobs(&store).open_job(&run.name, &longest).await.unwrap();
    assert_eq!(joined, run);
    let long = vec![0; 8193];
    for (after, upto) in [(None, Some(&long[..])), (Some(&long[..]), None)] {
        refused(&jobs(&store).extend_job(&run, after, upto, holder, LONG).await);
    }
    // Counts saturate at the column's maximum.
    for upto in [Some(&b"a"[..]), None] {
        let after = upto.is_none().then_some(&b"a"[..]);
        let range = extend(&store, &run, after, upto, holder, LONG).await.unwrap();
        assert!(complete(&store, &range, JobTally::new(u64::MAX, 1, u64::MAX)).await);
    }
    let tally = status(&store, &run.name).await.tally;
    let most = u64::try_from(i64::MAX).unwrap();
    assert!(tally.changed >= most && tally.failed >= most, "{tally:?}");
    assert_eq!(tally.unchanged, 2);
}
