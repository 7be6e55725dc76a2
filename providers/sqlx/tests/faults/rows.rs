//! Re-encryption of rows while servers and processes are killed.

use std::sync::Arc;
use std::time::Duration;

use libtest_mimic::Trial;

use crate::gates::Gate;
use crate::invariants;
use crate::jobs::{Step, interrupt};
use crate::member::{Ask, Member};
use crate::scene::{Scene, play};
use crate::server::Server;
use crate::{server, trial};

/// The number of notes of each tenant, and of notes in a range.
const NOTES: i64 = 12;
const RANGE: u32 = 4;
const TENANTS: [&str; 2] = ["t0", "t1"];

/// Each writing step of a re-encryption. It calls no KMS: both versions are cached once used.
const STEPS: &[(&str, Gate)] = &[
    ("before_the_frontier_moves", Gate::insert("job_ranges")),
    ("while_rows_are_written", Gate::update("patients")),
    ("while_rows_are_committed", Gate::commit_of_update("patients")),
    ("before_a_range_is_completed", Gate::delete("job_ranges")),
];

pub(crate) fn tests() -> Vec<Trial> {
    let processes = STEPS.iter().map(|(name, gate)| {
        let name = format!("rows::reencrypt_process_killed_{name}");
        trial(&name, || process_killed(*gate))
    });
    let servers = STEPS.iter().map(|(name, gate)| {
        let name = format!("rows::reencrypt_server_killed_{name}");
        trial(&name, || server_killed(*gate))
    });
    processes.chain(servers).collect()
}

fn reencrypt() -> Ask {
    Ask::Reencrypt { range: RANGE }
}

/// A process that dies in the middle leaves rows under the old version, which stay readable. Once its claims expire,
/// another process with the same job continues, and rewrites no row that was already written.
fn process_killed(gate: Gate) {
    play(server::shared(), async |scene| {
        seed(scene).await;
        interrupt(scene, &scene.settings(), &Step::Write(gate), reencrypt()).await;
        invariants::hold(scene).await;
        let written = under_the_active_version(scene).await;
        scene.expire_claims().await;
        let heir = scene.member().await;
        heir.perform(reencrypt()).await.unwrap();
        for (id, note) in written {
            assert_eq!(
                scene.note(id).await.unwrap().1,
                note,
                "patient {id} was written twice"
            );
        }
        complete(scene).await;
    });
}

/// A caller of the job only notices the delay: the job retries until the server is back, and completes.
fn server_killed(gate: Gate) {
    let server = Server::take();
    play(server.address(), async |scene| {
        seed(scene).await;
        let member = Arc::new(scene.member().await);
        scene.close(gate).await;
        let running: Arc<Member> = Arc::clone(&member);
        let job = tokio::spawn(async move { running.perform(reencrypt()).await });
        scene.until_one_waits().await;
        server.kill();
        server.start();
        let done = tokio::time::timeout(Duration::from_secs(20), job).await;
        let changed = done.expect("it continues").unwrap();
        assert!(changed.is_ok(), "{changed:?}");
        complete(scene).await;
    });
}

/// Writes notes of two tenants, and rotates the key of both.
async fn seed(scene: &Scene) {
    let member = scene.member().await;
    for (tenant, first) in TENANTS.into_iter().zip([0, NOTES]) {
        for id in first..first + NOTES {
            member.write_note(tenant, id).await.unwrap();
        }
        let tenant = tenant.to_owned();
        member.perform(Ask::Rotate { tenant }).await.unwrap();
    }
}

/// Lists the notes that were re-encrypted.
async fn under_the_active_version(scene: &Scene) -> Vec<(i64, encx::Ciphertext)> {
    sqlx::query_as(
        "SELECT p.id, p.note FROM patients p JOIN encx.data_keys k ON uuid_send(k.id) = substring(p.note FROM 3 FOR 16)
         WHERE k.state = 'active'",
    )
    .fetch_all(&scene.pool)
    .await
    .unwrap()
}

/// Checks that every note is readable and under the active version, and that nothing is left to do.
async fn complete(scene: &Scene) {
    let current = under_the_active_version(scene).await;
    assert_eq!(current.len(), TENANTS.len() * usize::try_from(NOTES).unwrap());
    let again = scene.member().await.perform(reencrypt()).await;
    assert_eq!(again, Ok(b"0".to_vec()), "nothing is left to re-encrypt");
    invariants::hold(scene).await;
}
