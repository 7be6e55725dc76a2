//! Shared jobs while servers and processes are killed.

use std::sync::Arc;
use std::time::Duration;

use libtest_mimic::Trial;

use crate::gates::Gate;
use crate::invariants;
use crate::member::{Ask, Member, Settings};
use crate::process::Worker;
use crate::scene::{Scene, play};
use crate::server::Server;
use crate::{server, trial};

/// The number of versions, and of versions in a range.
const KEYS: usize = 24;
const RANGE: u32 = 4;
/// A worker's maximum number of items in progress: three ranges.
const IN_HAND: usize = 3 * 4;

/// Where a job is interrupted.
struct Case {
    name: &'static str,
    step: Step,
    /// The maximum number of KMS calls, by all processes together.
    calls: usize,
}

pub(crate) enum Step {
    /// Before the KMS answers.
    Kms(&'static str),
    /// Before the database answers this write.
    Write(Gate),
}

/// Work that was not yet recorded is repeated: the ranges in progress. Recorded work is not.
const REWRAP: &[Case] = &[
    Case {
        name: "while_the_kms_moves_keys",
        step: Step::Kms("rewrap"),
        calls: KEYS + IN_HAND,
    },
    Case {
        name: "while_a_range_is_written",
        step: Step::Write(Gate::update("wrapped_keys")),
        calls: KEYS + IN_HAND,
    },
    Case {
        name: "before_a_range_is_completed",
        step: Step::Write(Gate::delete("job_ranges")),
        // That range was written, and its keys are not moved again.
        calls: KEYS + IN_HAND - 4,
    },
];

pub(crate) fn tests() -> Vec<Trial> {
    let processes = REWRAP.iter().map(|case| {
        let name = format!("jobs::rewrap_all_process_killed_{}", case.name);
        trial(&name, || rewrap_process_killed(case))
    });
    let servers = REWRAP.iter().filter_map(|case| match case.step {
        Step::Write(gate) => {
            let name = format!("jobs::rewrap_all_server_killed_{}", case.name);
            Some(trial(&name, move || rewrap_server_killed(gate)))
        }
        Step::Kms(_) => None,
    });
    processes.chain(servers).collect()
}

fn rewrap_all() -> Ask {
    Ask::RewrapAll { range: RANGE }
}

/// A process that dies in the middle leaves ranges behind. Once their claims expire, after half a minute, another
/// process with the same job completes them. Completed ranges stay complete.
fn rewrap_process_killed(case: &'static Case) {
    play(server::shared(), async |scene| {
        seed(scene).await;
        let settings = scene.settings().moving();
        interrupt(scene, &settings, &case.step, rewrap_all()).await;
        scene.expire_claims().await;
        let heir = Member::new(settings).await;
        heir.perform(rewrap_all()).await.unwrap();
        moved(scene, case.calls).await;
    });
}

/// Starts a worker on a job, and kills it at this step.
pub(crate) async fn interrupt(scene: &Scene, settings: &Settings, step: &Step, job: Ask) {
    let mut dying = Worker::start(settings);
    match step {
        Step::Kms(operation) => scene.control.set(&format!("hang-{operation}")),
        Step::Write(gate) => scene.close(*gate).await,
    }
    let held = async {
        match step {
            Step::Kms(operation) => scene.control.until_held(operation).await,
            Step::Write(_) => scene.until_one_waits().await,
        }
    };
    tokio::select! {
        biased;
        answer = dying.try_ask(job) => panic!("it should hang: {answer:?}"),
        () = held => {}
    }
    dying.kill().await;
    match step {
        Step::Kms(operation) => scene.control.clear(&format!("hang-{operation}")),
        Step::Write(_) => scene.open_gates().await,
    }
}

/// A caller of the job only notices the delay: the job retries until the server is back, and completes.
fn rewrap_server_killed(gate: Gate) {
    let server = Server::take();
    play(server.address(), async |scene| {
        seed(scene).await;
        let member = Arc::new(Member::new(scene.settings().moving()).await);
        scene.close(gate).await;
        let running = Arc::clone(&member);
        let job = tokio::spawn(async move { running.perform(rewrap_all()).await });
        scene.until_one_waits().await;
        server.kill();
        server.start();
        let done = tokio::time::timeout(Duration::from_secs(20), job).await;
        let changed = done.expect("it continues").unwrap();
        assert!(changed.is_ok(), "{changed:?}");
        // Ranges that were not written yet are repeated.
        moved(scene, KEYS + IN_HAND).await;
    });
}

/// Makes versions under the old KEK, and a note under each.
async fn seed(scene: &Scene) {
    let member = scene.member().await;
    for id in 0..i64::try_from(KEYS).unwrap() {
        member.write_note(&format!("t{id}"), id).await.unwrap();
    }
}

/// Checks that every key was moved, with at most this many KMS calls.
async fn moved(scene: &Scene, most: usize) {
    let wraps = "SELECT count(*) FROM encx.wrapped_keys GROUP BY kek";
    let wraps: Vec<i64> = sqlx::query_scalar(wraps).fetch_all(&scene.pool).await.unwrap();
    assert_eq!(wraps, [i64::try_from(KEYS).unwrap()], "all under one KEK");
    let calls = scene.control.calls("rewrap").len();
    assert!(calls >= KEYS && calls <= most, "{calls} calls");
    let again = scene.settings().moving();
    let again = Member::new(again).await.perform(rewrap_all()).await;
    assert_eq!(again, Ok(b"0".to_vec()), "nothing is left to move");
    assert_eq!(scene.control.calls("rewrap").len(), calls, "no KMS call");
    invariants::hold(scene).await;
}
