//! A process is killed with -9 at each step of an operation, and another process completes it.

use std::time::Duration;

use libtest_mimic::Trial;

use crate::gates::Gate;
use crate::invariants;
use crate::member::Ask;
use crate::process::Worker;
use crate::scene::{Scene, play};
use crate::{server, trial};

/// Where the process is killed.
enum Step {
    /// Before the KMS answers this call.
    Kms(&'static str),
    /// Before the database answers this write.
    Write(Gate),
}

struct Case {
    name: &'static str,
    step: Step,
    ask: fn() -> Ask,
    /// The states of the tenant's versions afterwards.
    finally: &'static [&'static str],
    /// The operation, and how many such calls the KMS got from both processes together.
    calls: (&'static str, usize),
}

const CASES: &[Case] = &[
    Case {
        name: "rotate_while_the_kms_makes_the_key",
        step: Step::Kms("generate"),
        ask: rotate,
        finally: &["deactivated", "deactivated", "deactivated", "active"],
        calls: ("generate", 2),
    },
    Case {
        name: "rotate_before_the_new_version_is_committed",
        step: Step::Write(Gate::insert("audit_log").only(r#"{"to_state": "pre-active"}"#)),
        ask: rotate,
        finally: &["deactivated", "deactivated", "deactivated", "active"],
        calls: ("generate", 2),
    },
    Case {
        name: "rotate_when_the_promotion_begins",
        step: Step::Write(Gate::update("data_keys").only(r#"{"state": "deactivated", "version": 3}"#)),
        ask: rotate,
        finally: &["deactivated", "deactivated", "deactivated", "active"],
        // The published version is promoted, rather than another one.
        calls: ("generate", 1),
    },
    Case {
        name: "rotate_before_the_promotion_is_committed",
        step: Step::Write(Gate::insert("audit_log").only(r#"{"to_state": "active"}"#)),
        ask: rotate,
        finally: &["deactivated", "deactivated", "deactivated", "active"],
        calls: ("generate", 1),
    },
    Case {
        name: "rewrap_while_the_kms_moves_the_first",
        step: Step::Kms("rewrap"),
        ask: rewrap,
        finally: &["deactivated", "deactivated", "active"],
        // Three versions, and the one in progress.
        calls: ("rewrap", 4),
    },
    Case {
        name: "rewrap_while_the_second_is_written",
        step: Step::Write(Gate::update("data_keys").only(r#"{"version": 2}"#)),
        ask: rewrap,
        finally: &["deactivated", "deactivated", "active"],
        // The first is moved, and not rewrapped again.
        calls: ("rewrap", 4),
    },
];

fn rotate() -> Ask {
    Ask::Rotate {
        tenant: "t".to_owned(),
    }
}

fn rewrap() -> Ask {
    Ask::Rewrap {
        tenant: "t".to_owned(),
    }
}

pub(crate) fn tests() -> Vec<Trial> {
    let cases = CASES
        .iter()
        .map(|case| trial(&format!("killed_process::{}", case.name), || taken_over(case)));
    cases.collect()
}

/// The next caller succeeds within seconds after a kill at any step. No lock and no partial change remains,
/// and completed work is not repeated.
fn taken_over(case: &'static Case) {
    play(server::shared(), async |scene| {
        seed(scene, 3).await;
        let settings = scene.settings().moving();
        let (mut dying, heir) = (Worker::start(&settings), Worker::start(&settings));
        let made = scene.control.calls(case.calls.0).len();
        match &case.step {
            Step::Kms(operation) => scene.control.set(&format!("hang-{operation}")),
            Step::Write(gate) => scene.close(*gate).await,
        }
        let killed = async {
            match &case.step {
                Step::Kms(operation) => scene.control.until_held(operation).await,
                Step::Write(_) => scene.until_one_waits().await,
            }
        };
        tokio::select! {
            biased;
            answer = dying.try_ask((case.ask)()) => panic!("it should hang: {answer:?}"),
            () = killed => {}
        }
        dying.kill().await;
        match &case.step {
            Step::Kms(operation) => scene.control.clear(&format!("hang-{operation}")),
            Step::Write(_) => scene.open_gates().await,
        }
        let heir = tokio::time::timeout(Duration::from_secs(5), heir.ask((case.ask)()));
        let done = heir.await.expect("nothing is locked");
        assert!(done.is_ok(), "{done:?}");
        let states: Vec<String> = sqlx::query_scalar("SELECT state FROM encx.data_keys ORDER BY version")
            .fetch_all(&scene.pool)
            .await
            .unwrap();
        assert_eq!(states, case.finally);
        assert_eq!(scene.control.calls(case.calls.0).len() - made, case.calls.1);
        invariants::hold(scene).await;
    });
}

/// Makes tenant `t` with this many versions, and a note under each.
async fn seed(scene: &Scene, versions: i64) {
    let member = scene.member().await;
    for version in 1..=versions {
        let ask = match version {
            1 => Ask::Create {
                tenant: "t".to_owned(),
            },
            _ => rotate(),
        };
        member.perform(ask).await.unwrap();
        member.write_note("t", version).await.unwrap();
    }
}
