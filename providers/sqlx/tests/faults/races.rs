//! Eight processes race on the same keys.

use encx::store::StoreError;
use encx::{Ciphertext, Error};
use libtest_mimic::Trial;
use serde::{Deserialize, Serialize};

use crate::invariants::{self, text_of};
use crate::member::{Ask, Member, context};
use crate::process::Worker;
use crate::scene::{NOTE, Scene, play};
use crate::{rounds, server, trial};

const WORKERS: u64 = 8;
const TENANTS: u64 = 3;
const PATIENTS: i64 = 40;

pub(crate) fn tests() -> Vec<Trial> {
    vec![trial(
        "races::eight_processes_do_everything_at_once",
        everything_at_once,
    )]
}

/// The part of one worker.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Part {
    seed: u64,
    steps: usize,
}

/// Eight processes create, rotate and rewrap the same keys back and forth, and write and read under them. No ciphertext
/// becomes unreadable, no scope ever has two active versions, and versions have no gaps. A process that loses a race
/// gets a result or a matching error, never another one.
fn everything_at_once() {
    play(server::shared(), async |scene| {
        let pooler = scene.pooler();
        let workers = (0..WORKERS).map(|seed| {
            let mut settings = scene.settings();
            // Some of them share a few sessions.
            settings.pooler = (seed >= WORKERS / 2).then_some(pooler.port);
            // Half of them move keys one way, half the other.
            let settings = if seed % 2 == 0 {
                settings
            } else {
                settings.moving()
            };
            (seed, Worker::start(&settings))
        });
        let workers: Vec<_> = workers.collect();
        let parts = workers.iter().map(|(seed, worker)| {
            worker.ask(Ask::Race(Part {
                seed: *seed,
                steps: 60 * rounds(),
            }))
        });
        tokio::select! {
            answers = all(parts) => for answer in answers {
                assert_eq!(answer, Ok(Vec::new()));
            },
            () = watch(scene) => {}
        }
        invariants::hold(scene).await;
        let rotated: i64 = sqlx::query_scalar("SELECT max(version)::bigint FROM encx.data_keys")
            .fetch_one(&scene.pool)
            .await
            .unwrap();
        assert!(rotated > 3, "they rotated {rotated} versions");
        assert!(scene.control.calls("rewrap").len() > 8, "they rewrapped");
    });
}

pub(crate) async fn all<T>(parts: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut parts: Vec<_> = parts.map(Box::pin).collect();
    let mut done: Vec<Option<T>> = parts.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        for (part, done) in parts.iter_mut().zip(&mut done).filter(|(_, done)| done.is_none()) {
            if let std::task::Poll::Ready(value) = part.as_mut().poll(context) {
                *done = Some(value);
            }
        }
        if done.iter().all(Option::is_some) {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    done.into_iter().flatten().collect()
}

/// Checks the invariants while they race.
async fn watch(scene: &Scene) {
    loop {
        let bad: Option<String> = sqlx::query_scalar(
            "SELECT string_agg(state || ' ' || version, ', ') FROM encx.data_keys GROUP BY scope
             HAVING count(*) FILTER (WHERE state = 'active') <> 1 OR max(version) <> count(*)",
        )
        .fetch_optional(&scene.pool)
        .await
        .unwrap();
        assert_eq!(bad, None, "one active version, and no gaps");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

/// Runs a worker's part: steps drawn from its seed.
pub(crate) async fn run(member: &Member, part: Part) {
    let mut draw = Draw(part.seed.wrapping_add(1));
    for _ in 0..part.steps {
        let tenant = format!("t{}", draw.below(TENANTS));
        let keys = member.keys();
        let context = context(&tenant);
        let done = match draw.below(8) {
            0 => keys.create(&context).await.map(|_| ()),
            1 => keys.rotate(&context).await.map(|_| ()),
            2 => keys.rewrap(&context).await.map(|_| ()),
            3 | 4 => {
                // A patient has one tenant.
                let id = patient_of(&tenant, &mut draw);
                write(member, &tenant, id).await
            }
            _ => read_any(member, &mut draw).await,
        };
        match done {
            Ok(()) | Err(Error::AlreadyExists | Error::NoKeys) => {}
            Err(Error::Store(StoreError::Conflict | StoreError::StaleRevision { .. })) => {}
            Err(error) => panic!("{tenant}: {error:?}"),
        }
    }
}

fn patient_of(tenant: &str, draw: &mut Draw) -> i64 {
    let tenant: i64 = tenant[1..].parse().unwrap();
    let number = i64::try_from(draw.below(PATIENTS.unsigned_abs())).unwrap();
    number * i64::try_from(TENANTS).unwrap() + tenant
}

async fn write(member: &Member, tenant: &str, id: i64) -> Result<(), Error> {
    member.write_note(tenant, id).await
}

/// Reads a row, and re-encrypts it if it is under an older key.
async fn read_any(member: &Member, draw: &mut Draw) -> Result<(), Error> {
    let rows: Vec<(i64, String, Ciphertext)> =
        sqlx::query_as("SELECT id, tenant, note FROM patients ORDER BY md5(id::text || $1) LIMIT 3")
            .bind(draw.below(1000).to_string())
            .fetch_all(&member.rows)
            .await
            .unwrap();
    for (id, tenant, sealed) in rows {
        let context = context(&tenant);
        let opened = member.crypto.decrypt(&context, &sealed, NOTE.row(id)).await?;
        assert_eq!(opened.as_bytes(), text_of(&tenant, id).as_bytes());
        if member.crypto.needs_reencryption(&context, &sealed).await? {
            let resealed = member
                .crypto
                .encrypt(&context, opened.as_bytes(), NOTE.row(id))
                .await?;
            sqlx::query("UPDATE patients SET note = $1 WHERE id = $2 AND note = $3")
                .bind(resealed)
                .bind(id)
                .bind(sealed)
                .execute(&member.rows)
                .await
                .unwrap();
        }
    }
    Ok(())
}

/// `SplitMix64`, so that a seed determines what happens.
struct Draw(u64);

impl Draw {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}
