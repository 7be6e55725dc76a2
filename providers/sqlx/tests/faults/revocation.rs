//! A key is suspended, and every process refuses it.

use std::time::Duration;

use encx::keys::KeyState;
use libtest_mimic::Trial;
use tokio::time::Instant;

use crate::member::{Ask, Settings, context};
use crate::process::Worker;
use crate::races::all;
use crate::scene::{Scene, play};
use crate::{say, server, trial};

/// The number of processes.
const PROCESSES: usize = 5;

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        trial("revocation::with_listen_url_within_a_second", within_a_second),
        trial("revocation::every_process_says_so", every_process_says_so),
        trial("revocation::through_a_pooler_within_state_ttl", within_state_ttl),
        trial("revocation::through_a_pooler_and_past_it", past_the_pooler),
    ]
}

/// Every listening process refuses within a second, although it would only poll after an hour.
fn within_a_second() {
    play(server::shared(), async |scene| {
        let mut settings = scene.settings();
        settings.state_ttl = Duration::from_secs(3600);
        settings.listens = true;
        let slowest = revoke(scene, &settings).await;
        say(&format!("{PROCESSES} processes refused within {slowest:?}"));
        assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    });
}

/// The process that withdraws a key waits until all processes have dropped it, N of N. A hanging process is listed in
/// the report, with the time after which it cannot serve the key, and is not waited for beyond the deadline.
fn every_process_says_so() {
    play(server::shared(), async |scene| {
        let mut settings = scene.settings();
        settings.state_ttl = Duration::from_secs(3600);
        settings.listens = true;
        let admin = scene.member().await;
        admin.write_note("t", 1).await.unwrap();
        let workers: Vec<_> = (0..PROCESSES).map(|_| Worker::start(&settings)).collect();
        let (tenant, sealed) = scene.note(1).await.unwrap();
        let (key, sealed) = (sealed.key_id(), sealed.into_bytes());
        let decrypt = Ask::Decrypt {
            tenant,
            sealed,
            id: 1,
        };
        for read in all(workers.iter().map(|worker| worker.ask(decrypt.clone()))).await {
            read.unwrap();
        }
        scene.until_registered(PROCESSES + 1).await;

        let keys = admin.keys();
        keys.set_state(&context("t"), key, KeyState::Suspended)
            .await
            .unwrap();
        let began = Instant::now();
        let report = keys.await_processes(Duration::from_secs(10)).await.unwrap();
        say(&format!(
            "{} processes acknowledged within {:?}",
            PROCESSES + 1,
            began.elapsed()
        ));
        assert!(report.is_complete(), "{report:?}");
        assert_eq!(report.acknowledged.len(), PROCESSES + 1);
        for refused in all(workers.iter().map(|worker| worker.ask(decrypt.clone()))).await {
            assert_eq!(refused.unwrap_err().kind, "Suspended");
        }

        let frozen = &workers[0];
        frozen.freeze();
        let began = Instant::now();
        let report = keys.await_processes(Duration::from_secs(1)).await.unwrap();
        assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
        assert_eq!(report.acknowledged.len(), PROCESSES);
        let [silent] = &report.silent[..] else {
            panic!("{report:?}");
        };
        let name = &silent.process.name;
        assert!(name.ends_with(&format!("-{}", frozen.id())), "{name}");
        let serves_for = silent.serves_until.as_micros() - report.at.as_micros();
        assert_eq!(u128::try_from(serves_for), Ok(settings.ttl.as_micros()));
        frozen.thaw();
        assert!(
            keys.await_processes(Duration::from_secs(10))
                .await
                .unwrap()
                .is_complete()
        );
    });
}

/// Behind a transaction pooler no notifications arrive: without `listen_url` every process refuses within `state_ttl`.
fn within_state_ttl() {
    play(server::shared(), async |scene| {
        let pooler = scene.pooler();
        let mut settings = scene.settings();
        settings.pooler = Some(pooler.port);
        settings.state_ttl = Duration::from_secs(1);
        let slowest = revoke(scene, &settings).await;
        // A poll begins within `state_ttl`, and takes its time on a busy machine.
        assert!(
            slowest < settings.state_ttl + Duration::from_millis(500),
            "{slowest:?}"
        );
    });
}

/// Behind a transaction pooler, with a `listen_url` that bypasses it: within a second.
fn past_the_pooler() {
    play(server::shared(), async |scene| {
        let pooler = scene.pooler();
        let mut settings = scene.settings();
        settings.pooler = Some(pooler.port);
        settings.state_ttl = Duration::from_secs(3600);
        settings.listens = true;
        let slowest = revoke(scene, &settings).await;
        assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    });
}

/// Suspends a key that all processes use for reading without a pause. Returns the time until the last of them refused.
async fn revoke(scene: &Scene, settings: &Settings) -> Duration {
    let admin = scene.member().await;
    admin.write_note("t", 1).await.unwrap();
    let (tenant, sealed) = scene.note(1).await.unwrap();
    let (key, sealed) = (sealed.key_id().to_string(), sealed.into_bytes());
    let workers: Vec<_> = (0..PROCESSES).map(|_| Worker::start(settings)).collect();
    let decrypt = Ask::Decrypt {
        tenant: tenant.clone(),
        sealed: sealed.clone(),
        id: 1,
    };
    for read in all(workers.iter().map(|worker| worker.ask(decrypt.clone()))).await {
        read.unwrap();
    }
    let until_refused = Ask::UntilRefused {
        tenant: tenant.clone(),
        sealed,
        id: 1,
    };
    let reading = workers.iter().map(async |worker| {
        let refused = worker.ask(until_refused.clone()).await.unwrap_err();
        (refused, Instant::now())
    });
    let suspend = async {
        // Taken before the commit, so that the measured time is an upper bound.
        let asked = Instant::now();
        let state = "suspended".to_owned();
        admin.perform(Ask::SetState { tenant, key, state }).await.unwrap();
        asked
    };
    let (refused, asked) = tokio::join!(all(reading), suspend);
    let mut slowest = Duration::ZERO;
    for (refusal, at) in refused {
        assert_eq!(refusal.kind, "Suspended");
        assert!(!refusal.retryable);
        slowest = slowest.max(at.saturating_duration_since(asked));
    }
    slowest
}
