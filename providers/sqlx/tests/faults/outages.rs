//! What users see while the KMS is down, and while the database has no free connection or does not answer.

use std::sync::Arc;
use std::time::Duration;

use libtest_mimic::Trial;
use tokio::time::Instant;

use crate::gates::Gate;
use crate::invariants::{self, text_of};
use crate::member::{Answer, Ask, Member};
use crate::proxy::Proxy;
use crate::scene::{Scene, play, until};
use crate::{server, trial};

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        trial("outages::the_kms_is_down_for_longer_than_ttl", kms_down),
        trial(
            "outages::the_kms_is_down_and_keys_may_be_stale",
            kms_down_with_stale,
        ),
        trial("outages::the_pool_is_exhausted", pool_exhausted),
        trial("outages::connections_hang", connections_hang),
        trial("outages::the_answer_to_a_write_never_comes", a_write_hangs),
    ]
}

const TTL: Duration = Duration::from_millis(800);

/// Without `stale_if_unavailable`, reads and writes continue until `ttl` is over and then fail, retryably; nothing
/// waits for long. They recover once the KMS is back.
fn kms_down() {
    play(server::shared(), async |scene| {
        let mut settings = scene.settings();
        settings.ttl = TTL;
        let member = Member::new(settings).await;
        // Before the key is unwrapped, so that the key serves until `ttl` from here, or longer.
        let began = Instant::now();
        member.write_note("t", 1).await.unwrap();
        scene.control.set("down");
        let failure = loop {
            match read(scene, &member).await {
                Ok(text) => assert_eq!(text, text_of("t", 1).as_bytes()),
                Err(failure) => break failure,
            }
        };
        assert!(began.elapsed() >= TTL, "it serves until its ttl is over");
        assert!(failure.retryable, "{failure:?}");
        assert_eq!(failure.kind, "Kms::Unavailable");
        let asked = Instant::now();
        let failure = member.perform(encrypt()).await.unwrap_err();
        assert!(failure.retryable, "{failure:?}");
        assert!(asked.elapsed() < Duration::from_secs(1), "no call waits");

        scene.control.clear("down");
        // After so short an outage the breaker pauses for a few seconds at most.
        until("it reads again", Duration::from_secs(10), async || {
            read(scene, &member).await.is_ok()
        })
        .await;
        assert!(member.perform(encrypt()).await.is_ok());
    });
}

/// With `stale_if_unavailable`, cached keys continue to serve, and those uses are counted. A key that is not cached
/// cannot serve. A refusal is an answer, and ends this immediately.
fn kms_down_with_stale() {
    play(server::shared(), async |scene| {
        let mut settings = scene.settings();
        settings.ttl = TTL;
        settings.stale = Duration::from_secs(60);
        let member = Member::new(settings).await;
        member.write_note("t", 1).await.unwrap();
        scene.control.set("down");
        let stale = async || {
            let text = read(scene, &member).await.unwrap();
            assert_eq!(text, text_of("t", 1).as_bytes());
            member.perform(encrypt()).await.unwrap();
            member.crypto.stats().stale_key_serves > 100
        };
        until("stale keys have served", Duration::from_secs(10), stale).await;
        let cold = scene.member().await;
        let failure = read(scene, &cold).await.unwrap_err();
        assert!(failure.retryable, "{failure:?}");

        scene.control.clear("down");
        scene.control.set("denied");
        let refused = async || {
            let failure = read(scene, &member).await.err();
            failure.is_some_and(|failure| failure.kind == "Kms::AccessDenied" && !failure.retryable)
        };
        until("the refusal counts", Duration::from_secs(10), refused).await;
    });
}

/// The caller holds the only connection of its pool. The store has its own, so it still works.
fn pool_exhausted() {
    play(server::shared(), async |scene| {
        scene.member().await.write_note("u", 2).await.unwrap();
        let mut settings = scene.settings();
        settings.connections = 1;
        settings.acquire_timeout = Duration::from_secs(5);
        let member = Member::new(settings).await;
        member.write_note("t", 1).await.unwrap();
        let taken = member.pool.acquire().await.unwrap();
        assert!(read(scene, &member).await.is_ok(), "a key in memory");
        member.perform(cold(scene).await).await.unwrap();
        member.perform(rotate()).await.unwrap();
        drop(taken);
    });
}

/// The network drops everything and closes nothing. Cached keys serve. Calls that need the database fail retryably
/// within `load_timeout` or the store's own limits. Once the network is back, the same handle works.
fn connections_hang() {
    play(server::shared(), async |scene| {
        scene.member().await.write_note("u", 2).await.unwrap();
        let port = server::shared().get_port();
        let proxy = Proxy::to(port).await;
        let mut settings = scene.settings().through(&proxy);
        settings.load_timeout = Duration::from_secs(1);
        settings.acquire_timeout = Duration::from_secs(1);
        let member = Member::new(settings).await;
        member.write_note("t", 1).await.unwrap();
        proxy.freeze();
        assert!(read(scene, &member).await.is_ok(), "a key in memory");
        let began = Instant::now();
        let failure = member.perform(cold(scene).await).await.unwrap_err();
        assert!(failure.retryable, "{failure:?}");
        assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
        let rotated = tokio::time::timeout(Duration::from_secs(20), member.perform(rotate()));
        let failure = rotated
            .await
            .expect("a rotation does not hang forever")
            .unwrap_err();
        assert!(failure.retryable, "{failure:?}");
        proxy.forward();
        until("it works again", Duration::from_secs(10), async || {
            member.perform(cold(scene).await).await.is_ok()
        })
        .await;
        member.perform(rotate()).await.unwrap();
    });
}

/// The network drops the answer to a write. The caller gets a retryable error after the time limit of a write, and the
/// database has the write entirely or not at all.
fn a_write_hangs() {
    play(server::shared(), async |scene| {
        let proxy = Proxy::to(server::shared().get_port()).await;
        let member = Arc::new(Member::new(scene.settings().through(&proxy)).await);
        member.write_note("t", 1).await.unwrap();
        scene.close(Gate::insert("audit_log")).await;
        let asked = Arc::clone(&member);
        let rotation = tokio::spawn(async move { asked.perform(rotate()).await });
        scene.until_one_waits().await;
        proxy.freeze();
        scene.open_gates().await;
        let ended = tokio::time::timeout(Duration::from_secs(20), rotation).await;
        let failure = ended.expect("it ends").unwrap().unwrap_err();
        assert!(failure.retryable, "{failure:?}");
        proxy.forward();
        until("it works again", Duration::from_secs(10), async || {
            member.perform(rotate()).await.is_ok()
        })
        .await;
        invariants::hold(scene).await;
    });
}

async fn read(scene: &Scene, member: &Member) -> Answer {
    let (tenant, sealed) = scene.note(1).await.unwrap();
    let sealed = sealed.into_bytes();
    member
        .perform(Ask::Decrypt {
            tenant,
            sealed,
            id: 1,
        })
        .await
}

/// Reads a value that this process has not read before.
async fn cold(scene: &Scene) -> Ask {
    let (tenant, sealed) = scene.note(2).await.unwrap();
    let sealed = sealed.into_bytes();
    Ask::Decrypt {
        tenant,
        sealed,
        id: 2,
    }
}

fn encrypt() -> Ask {
    Ask::Encrypt {
        tenant: "t".to_owned(),
        text: "new".to_owned(),
        id: 3,
    }
}

fn rotate() -> Ask {
    Ask::Rotate {
        tenant: "t".to_owned(),
    }
}
