//! Jobs that processes share, while servers and processes are killed.

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

/// How many versions there are, and how many a range has.
const KEYS: usize = 24;
const RANGE: u32 = 4;
/// What a worker has in hand at most: three ranges.
const IN_HAND: usize = 3 * 4;

/// Where a job is interrupted.
struct Case {
    name: &'static str,
    step: Step,
    /// How many KMS calls there are at most, from everybody together.
    calls: usize,
}

pub(crate) enum Step {
    /// While the KMS has not answered.
    Kms(&'static str),
    /// While the database has not answered this write.
    Write(Gate),
}

/// What was done and not written is done again: the ranges that were in hand. Of what was written nothing is.
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

/// A process that dies in the middle leaves ranges behind. Once their claims are over, after half a minute, another that
/// runs the job does them, and what was complete stays complete.
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

/// Whoever waits for the job notices nothing but the time: it tries again until the server is back, and completes.
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
        let changed = done.expect("it goes on").unwrap();
        assert!(changed.is_ok(), "{changed:?}");
        // Ranges that were not written yet are done again.
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

/// Checks that every key was moved, and that the KMS was not asked more often than it had to be.
async fn moved(scene: &Scene, most: usize) {
    let wraps = "SELECT count(*) FROM encx.wrapped_keys GROUP BY kek";
    let wraps: Vec<i64> = sqlx::query_scalar(wraps).fetch_all(&scene.pool).await.unwrap();
    assert_eq!(wraps, [i64::try_from(KEYS).unwrap()], "all under one KEK");
    let calls = scene.control.calls("rewrap").len();
    assert!(calls >= KEYS && calls <= most, "{calls} calls");
    let again = scene.settings().moving();
    let again = Member::new(again).await.perform(rewrap_all()).await;
    assert_eq!(again, Ok(b"0".to_vec()), "nothing is left to move");
    assert_eq!(scene.control.calls("rewrap").len(), calls, "and nobody is asked");
    invariants::hold(scene).await;
}
