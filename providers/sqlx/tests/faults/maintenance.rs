//! Scheduled rotation across processes, and while they die.

use std::time::Duration;

use libtest_mimic::Trial;
use tokio::time::Instant;

use crate::gates::Gate;
use crate::invariants;
use crate::member::Ask;
use crate::process::Worker;
use crate::races::all;
use crate::scene::{play, until};
use crate::{say, server, trial};

/// How long a dead process delays the others.
const LEASE: Duration = Duration::from_secs(1);

pub(crate) fn tests() -> Vec<Trial> {
    let killed = CASES.iter().map(|case| {
        let name = format!("maintenance::process_killed_{}", case.name);
        trial(&name, || taken_over(case))
    });
    let switch = trial("maintenance::no_request_waits_for_the_switch", switch);
    killed.chain([switch]).collect()
}

fn maintain(deadline: Duration) -> Ask {
    Ask::Maintain {
        lease: LEASE,
        deadline,
    }
}

/// Of two processes that run maintenance, exactly one makes each version. A process that writes and reads throughout is
/// refused nothing, and no call of it waits for a key: new keys are cached before they encrypt.
fn switch() {
    const TENANTS: usize = 5;
    play(server::shared(), async |scene| {
        let tenants: Vec<_> = (0..TENANTS).map(|tenant| format!("t{tenant}")).collect();
        let member = scene.member().await;
        for (tenant, id) in tenants.iter().zip(0..) {
            member.write_note(tenant, id).await.unwrap();
        }
        member.crypto.shutdown().await;
        scene.age_keys().await;
        let mut settings = scene.settings();
        settings.listens = true;
        let [first, second, busy] = std::array::from_fn(|_| Worker::start(&settings));
        for tenant in &tenants {
            let warm = Ask::Encrypt {
                tenant: tenant.clone(),
                text: String::new(),
                id: 1,
            };
            busy.ask(warm).await.unwrap();
        }
        scene.until_registered(3).await;
        let made = scene.control.calls("generate").len();
        let load = busy.ask(Ask::UntilSwitched {
            tenants: tenants.clone(),
        });
        let deadline = Duration::from_secs(20);
        let maintainers = [&first, &second];
        let maintained = all(maintainers.iter().map(|worker| worker.ask(maintain(deadline))));
        let (waited, maintained) = tokio::join!(load, maintained);
        assert_eq!(waited, Ok(b"0".to_vec()), "calls that waited");
        let all = Ok(format!("{TENANTS} {TENANTS}").into_bytes());
        assert!(
            maintained.contains(&all),
            "one made and promoted them: {maintained:?}"
        );
        assert_eq!(scene.control.calls("generate").len() - made, TENANTS);
        // A later run finds nothing to do.
        assert_eq!(second.ask(maintain(deadline)).await, Ok(b"0 0".to_vec()));
        invariants::hold(scene).await;
    });
}

/// Where the process that holds the lease is killed.
enum Step {
    Kms(&'static str),
    /// The version is published, and the process waits for all processes.
    Published,
    Write(Gate),
}

struct Case {
    name: &'static str,
    step: Step,
    /// How many versions the KMS made for both processes together.
    made: usize,
}

const CASES: &[Case] = &[
    Case {
        name: "while_the_kms_makes_the_key",
        step: Step::Kms("generate"),
        made: 2,
    },
    Case {
        name: "before_the_new_version_is_committed",
        step: Step::Write(Gate::insert("audit_log").only(r#"{"to_state": "pre-active"}"#)),
        made: 2,
    },
    Case {
        name: "after_it_is_published",
        step: Step::Published,
        made: 1,
    },
    Case {
        name: "before_the_promotion_is_committed",
        step: Step::Write(Gate::insert("audit_log").only(r#"{"to_state": "active"}"#)),
        made: 1,
    },
];

/// A dead process delays the others by the lease's term. The next process promotes the version that it published,
/// rather than making another.
fn taken_over(case: &'static Case) {
    play(server::shared(), async |scene| {
        let member = scene.member().await;
        member.write_note("t", 1).await.unwrap();
        member.crypto.shutdown().await;
        scene.age_keys().await;
        let mut settings = scene.settings();
        settings.listens = true;
        let (mut dying, heir) = (Worker::start(&settings), Worker::start(&settings));
        let silent = Worker::start(&settings);
        scene.until_registered(3).await;
        let made = scene.control.calls("generate").len();
        let states = async || -> Vec<String> {
            let states = sqlx::query_scalar("SELECT state FROM encx.data_keys ORDER BY version");
            states.fetch_all(&scene.pool).await.unwrap()
        };
        match &case.step {
            Step::Kms(operation) => scene.control.set(&format!("hang-{operation}")),
            // A process that does not answer, so that maintenance waits for it.
            Step::Published => silent.freeze(),
            Step::Write(gate) => scene.close(*gate).await,
        }
        let held = async {
            match &case.step {
                Step::Kms(operation) => scene.control.until_held(operation).await,
                Step::Published => {
                    until("it is published", Duration::from_secs(10), async || {
                        states().await == ["active", "pre-active"]
                    })
                    .await;
                }
                Step::Write(_) => scene.until_one_waits().await,
            }
        };
        tokio::select! {
            biased;
            answer = dying.try_ask(maintain(Duration::from_secs(30))) => panic!("it should hang: {answer:?}"),
            () = held => {}
        }
        dying.kill().await;
        let killed = Instant::now();
        match &case.step {
            Step::Kms(operation) => scene.control.clear(&format!("hang-{operation}")),
            Step::Published => silent.thaw(),
            Step::Write(_) => scene.open_gates().await,
        }
        // The dead process cannot acknowledge, and is waited for until the deadline.
        let deadline = Duration::from_secs(1);
        until(
            "another has done it",
            Duration::from_secs(10),
            async || match heir.ask(maintain(deadline)).await {
                Ok(done) => done.ends_with(b" 1"),
                Err(failure) => {
                    assert_eq!(failure.kind, "Held", "{failure:?}");
                    false
                }
            },
        )
        .await;
        let took = killed.elapsed();
        say(&format!("taken over within {took:?}, killed {}", case.name));
        assert!(took < LEASE + deadline + Duration::from_secs(2), "{took:?}");
        assert_eq!(states().await, ["deactivated", "active"]);
        assert_eq!(scene.control.calls("generate").len() - made, case.made);
        invariants::hold(scene).await;
    });
}
