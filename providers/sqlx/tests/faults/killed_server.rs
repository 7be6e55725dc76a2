//! PostgreSQL is killed with -9 in the middle of each operation, and restarted.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use libtest_mimic::Trial;

use crate::gates::Gate;
use crate::invariants::{self, text_of};
use crate::member::{Answer, Ask, Failure, Member};
use crate::proxy::Proxy;
use crate::scene::{Scene, play, until};
use crate::server::Server;
use crate::trial;

/// An operation, where it is interrupted, and the state after it was repeated.
struct Case {
    name: &'static str,
    gate: Gate,
    operation: fn(&Seed) -> Ask,
    /// The states of the tenant's versions after the crash.
    crashed: &'static [&'static str],
    /// Their states after the operation was repeated.
    finally: &'static [&'static str],
}

/// The initial state: a tenant `t` with a deactivated and an active version, and a note under each.
struct Seed {
    old: String,
    active: String,
}

const CASES: &[Case] = &[
    Case {
        name: "create_before_it_is_written",
        gate: Gate::insert("data_keys"),
        operation: |_| Ask::Create {
            tenant: "u".to_owned(),
        },
        crashed: &["deactivated", "active"],
        finally: &["deactivated", "active"],
    },
    Case {
        name: "create_in_its_commit",
        gate: Gate::commit_of_insert("audit_log"),
        operation: |_| Ask::Create {
            tenant: "u".to_owned(),
        },
        crashed: &["deactivated", "active"],
        finally: &["deactivated", "active"],
    },
    Case {
        name: "rotate_before_the_new_version_is_written",
        gate: Gate::insert("wrapped_keys"),
        operation: |_| rotate(),
        crashed: &["deactivated", "active"],
        finally: &["deactivated", "deactivated", "active"],
    },
    Case {
        name: "rotate_between_the_two_changes_of_a_promotion",
        gate: Gate::update("data_keys").only(r#"{"state": "active"}"#),
        operation: |_| rotate(),
        crashed: &["deactivated", "active", "pre-active"],
        finally: &["deactivated", "deactivated", "active"],
    },
    Case {
        name: "set_state_in_its_commit",
        gate: Gate::commit_of_insert("audit_log"),
        operation: |seed| Ask::SetState {
            tenant: "t".to_owned(),
            key: seed.active.clone(),
            state: "compromised".to_owned(),
        },
        crashed: &["deactivated", "active"],
        finally: &["deactivated", "compromised"],
    },
    Case {
        name: "destroy_before_its_audit_row_is_written",
        gate: Gate::insert("audit_log"),
        operation: |seed| Ask::Destroy {
            tenant: "t".to_owned(),
            key: seed.old.clone(),
        },
        crashed: &["deactivated", "active"],
        finally: &["destroyed", "active"],
    },
    Case {
        name: "maintenance_before_the_new_version_is_committed",
        gate: Gate::insert("audit_log").only(r#"{"to_state": "pre-active"}"#),
        operation: |_| maintain(),
        crashed: &["deactivated", "active"],
        finally: &["deactivated", "deactivated", "active"],
    },
    Case {
        name: "maintenance_before_the_promotion_is_committed",
        gate: Gate::insert("audit_log").only(r#"{"to_state": "active"}"#),
        operation: |_| maintain(),
        crashed: &["deactivated", "active", "pre-active"],
        finally: &["deactivated", "deactivated", "active"],
    },
    Case {
        name: "shred_when_the_second_version_is_destroyed",
        gate: Gate::update("data_keys").only(r#"{"state": "destroyed", "version": 2}"#),
        operation: |_| Ask::Shred {
            tenant: "t".to_owned(),
        },
        crashed: &["destroyed", "suspended"],
        finally: &["destroyed", "destroyed"],
    },
    Case {
        name: "rewrap_when_its_wrap_is_replaced",
        gate: Gate::update("wrapped_keys"),
        operation: |_| Ask::Rewrap {
            tenant: "t".to_owned(),
        },
        crashed: &["deactivated", "active"],
        finally: &["deactivated", "active"],
    },
];

/// An operation that completes but whose reply is lost, and the result when the caller retries.
struct Lost {
    name: &'static str,
    operation: fn(&Seed) -> Ask,
    /// The kind of error; `None` if the retry succeeds.
    again: Option<&'static str>,
    /// The states of the tenant's versions after the retry.
    finally: &'static [&'static str],
}

const LOST: &[Lost] = &[
    Lost {
        name: "create",
        operation: |_| Ask::Create {
            tenant: "u".to_owned(),
        },
        again: Some("AlreadyExists"),
        finally: &["deactivated", "active"],
    },
    Lost {
        name: "destroy",
        operation: |seed| Ask::Destroy {
            tenant: "t".to_owned(),
            key: seed.old.clone(),
        },
        again: Some("Store::IllegalTransition"),
        finally: &["destroyed", "active"],
    },
    Lost {
        name: "rewrap",
        operation: |_| Ask::Rewrap {
            tenant: "t".to_owned(),
        },
        again: None,
        finally: &["deactivated", "active"],
    },
    Lost {
        name: "set_state",
        operation: |seed| Ask::SetState {
            tenant: "t".to_owned(),
            key: seed.active.clone(),
            state: "compromised".to_owned(),
        },
        again: Some("Store::IllegalTransition"),
        finally: &["deactivated", "compromised"],
    },
];

fn maintain() -> Ask {
    Ask::Maintain {
        lease: Duration::from_secs(1),
        deadline: Duration::from_secs(1),
    }
}

fn rotate() -> Ask {
    Ask::Rotate {
        tenant: "t".to_owned(),
    }
}

pub(crate) fn tests() -> Vec<Trial> {
    let cases = CASES.iter().map(|case| {
        let name = format!("killed_server::{}", case.name);
        trial(&name, || interrupted(case))
    });
    let lost = LOST.iter().map(|case| {
        let name = format!("killed_server::reply_lost_of_{}", case.name);
        trial(&name, || reply_lost(case))
    });
    cases.chain(lost).collect()
}

/// The caller of the operation gets a retryable error once the pool gives up connecting, and the tables contain no
/// partial change. During the outage cached keys serve. Once the server is back, the same handle works again, and the
/// repeated operation completes.
fn interrupted(case: &'static Case) {
    let server = Server::take();
    play(server.address(), async |scene| {
        let mut settings = scene.settings().moving();
        // How long each of its queries tries to connect.
        settings.acquire_timeout = Duration::from_millis(500);
        let member = Arc::new(Member::new(settings).await);
        let seed = seed(scene).await;
        scene.age_keys().await;
        let note = scene.note(2).await.unwrap();
        let reading = read(&member, 2, &note.1).await;
        assert!(reading.is_ok(), "{reading:?}");

        scene.close(case.gate).await;
        let asked = Arc::clone(&member);
        let ask = (case.operation)(&seed);
        let operation = ask.clone();
        let operation = tokio::spawn(async move { asked.perform(operation).await });
        scene.until_one_waits().await;
        server.kill();
        let ended = tokio::time::timeout(Duration::from_secs(4), operation).await;
        let failure = ended.expect("it ends soon").unwrap().unwrap_err();
        assert!(failure.retryable, "{failure:?}");
        let reading = read(&member, 2, &note.1).await;
        match &ask {
            // A tenant being shredded gets no reads of possibly destroyed keys.
            Ask::Shred { .. } => assert!(reading.unwrap_err().retryable),
            _ => assert!(reading.is_ok(), "keys in memory serve: {reading:?}"),
        }

        server.start();
        assert_eq!(states(scene, "t").await, case.crashed);
        invariants::of_tables(&scene.pool).await;

        let done = persist(&member, &ask).await;
        assert!(done.is_ok(), "{done:?}");
        assert_eq!(states(scene, "t").await, case.finally);
        reads_as(scene, case.finally).await;
    });
}

/// The server commits, and dies before replying. The caller gets a retryable error, and on retrying learns from the
/// kind of error that the change is already done. Nothing is done twice.
fn reply_lost(case: &'static Lost) {
    let server = Server::take();
    play(server.address(), async |scene| {
        let proxy = Proxy::to(server.address().get_port()).await;
        let member = Arc::new(Member::new(scene.settings().moving().through(&proxy)).await);
        let seed = seed(scene).await;
        scene.close(Gate::commit_of_insert("audit_log")).await;
        let asked = Arc::clone(&member);
        let ask = (case.operation)(&seed);
        let operation = ask.clone();
        let operation = tokio::spawn(async move { asked.perform(operation).await });
        scene.until_one_waits().await;
        let before = logged(scene).await;
        proxy.lose_replies();
        scene.open_gates().await;
        until("it is committed", Duration::from_secs(5), async || {
            logged(scene).await > before
        })
        .await;
        server.kill();
        proxy.forward();
        let ended = tokio::time::timeout(Duration::from_secs(2), operation).await;
        let failure = ended.expect("it ends at once").unwrap().unwrap_err();
        assert!(failure.retryable, "{failure:?}");

        server.start();
        let again = persist(&member, &ask).await;
        assert_eq!(again.err().map(|failure| failure.kind).as_deref(), case.again);
        assert_eq!(states(scene, "t").await, case.finally);
        let calls = scene.control.calls("rewrap");
        let keys: BTreeSet<_> = calls.iter().collect();
        assert_eq!(calls.len(), keys.len(), "no key is moved twice");
        reads_as(scene, case.finally).await;
    });
}

/// Counts the changes in the audit log.
async fn logged(scene: &Scene) -> i64 {
    let count = sqlx::query_scalar("SELECT count(*) FROM encx.audit_log");
    count.fetch_one(&scene.pool).await.unwrap()
}

/// Checks the tables, and that a new process can read the tenant's notes, or cannot, according to their keys' states.
async fn reads_as(scene: &Scene, states: &[&str]) {
    invariants::of_tables(&scene.pool).await;
    let reader = scene.member().await;
    for (id, state) in [(1, states[0]), (2, states[1])] {
        let note = scene.note(id).await.unwrap();
        let read = read(&reader, id, &note.1).await;
        match state {
            "destroyed" => {
                let all = states.iter().all(|state| *state == "destroyed");
                let kind = if all { "Shredded" } else { "Destroyed" };
                assert_eq!(read.unwrap_err().kind, kind);
            }
            "compromised" => assert_eq!(read.unwrap_err().kind, "Compromised"),
            _ => assert_eq!(read.unwrap(), text_of("t", id).as_bytes()),
        }
    }
}

async fn seed(scene: &Scene) -> Seed {
    let member = scene.member().await;
    member
        .perform(Ask::Create {
            tenant: "t".to_owned(),
        })
        .await
        .unwrap();
    member.write_note("t", 1).await.unwrap();
    member.perform(rotate()).await.unwrap();
    member.write_note("t", 2).await.unwrap();
    let key_of = async |id| scene.note(id).await.unwrap().1.key_id().to_string();
    Seed {
        old: key_of(1).await,
        active: key_of(2).await,
    }
}

async fn read(member: &Member, id: i64, sealed: &encx::Ciphertext) -> Answer {
    let sealed = sealed.as_bytes().to_vec();
    let tenant = "t".to_owned();
    member.perform(Ask::Decrypt { tenant, sealed, id }).await
}

/// Retries until it succeeds, as long as the error is retryable.
async fn persist(member: &Member, ask: &Ask) -> Result<Vec<u8>, Failure> {
    for _ in 0..100 {
        match member.perform(ask.clone()).await {
            Err(failure) if failure.retryable => tokio::time::sleep(Duration::from_millis(50)).await,
            done => return done,
        }
    }
    panic!("{ask:?} still fails");
}

/// Lists the states of a tenant's versions, oldest first.
async fn states(scene: &Scene, tenant: &str) -> Vec<String> {
    let statement =
        "SELECT state FROM encx.data_keys WHERE context->>'tenantId' = $1 AND usage = 1 ORDER BY version";
    sqlx::query_scalar(statement)
        .bind(tenant)
        .fetch_all(&scene.pool)
        .await
        .unwrap()
}
