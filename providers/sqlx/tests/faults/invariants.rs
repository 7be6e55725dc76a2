//! Invariants that must hold after any crash, for the tables of encx and for every ciphertext.

use std::collections::BTreeMap;

use encx::keys::KeyState;
use sqlx::{PgPool, Row};
use uuid::Uuid;

use crate::member::{Ask, Member};
use crate::scene::Scene;

/// Checks all invariants at rest, and that a new process can read every patient's note.
pub(crate) async fn hold(scene: &Scene) {
    of_tables(&scene.pool).await;
    let reader = scene.member().await;
    all_read(scene, &reader).await;
}

/// Checks that `reader` can read every patient's note. A note names its patient.
pub(crate) async fn all_read(scene: &Scene, reader: &Member) {
    for (id, tenant, sealed) in scene.notes().await {
        let sealed = sealed.into_bytes();
        let ask = Ask::Decrypt {
            tenant: tenant.clone(),
            sealed,
            id,
        };
        match reader.perform(ask).await {
            Ok(text) => assert_eq!(text, text_of(&tenant, id).as_bytes()),
            Err(error) => panic!("the note of patient {id} of {tenant} is unreadable: {error:?}"),
        }
    }
}

/// Returns the text of a patient's note.
pub(crate) fn text_of(tenant: &str, id: i64) -> String {
    format!("patient {id} of {tenant}")
}

/// Checks that states are legal, versions have no gaps, and the audit log records exactly what happened.
pub(crate) async fn of_tables(pool: &PgPool) {
    let keys = sqlx::query(
        "SELECT id, scope, version, state, revision,
                (SELECT count(*) FROM encx.wrapped_keys w WHERE w.key_id = k.id) AS wraps
         FROM encx.data_keys k ORDER BY scope, version",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    let mut logs = logs(pool).await;
    let mut scopes: BTreeMap<Vec<u8>, Vec<KeyState>> = BTreeMap::new();
    for key in &keys {
        let id: Uuid = key.get("id");
        let state = KeyState::from_name(key.get("state")).unwrap();
        let versions = scopes.entry(key.get("scope")).or_default();
        versions.push(state);
        let version = usize::try_from(key.get::<i32, _>("version")).unwrap();
        assert_eq!(version, versions.len(), "{id}: versions follow one another");
        let wraps: i64 = key.get("wraps");
        assert_eq!(
            wraps == 0,
            state == KeyState::Destroyed,
            "{id} is {state} and has {wraps} wraps"
        );
        let log = logs.remove(&id).unwrap_or_default();
        // Every change increments the revision.
        let changes = i64::try_from(log.len()).unwrap();
        assert_eq!(key.get::<i64, _>("revision"), changes, "{id}: {log:?}");
        agrees(id, &log, state);
    }
    for (scope, versions) in &scopes {
        let active = versions.iter().filter(|state| **state == KeyState::Active);
        assert!(active.count() <= 1, "{scope:?}: {versions:?}");
    }
    assert_eq!(
        logs,
        BTreeMap::new(),
        "the log has changes of keys that do not exist"
    );
}

/// A key's logged changes: from which state to which.
type Log = Vec<(Option<String>, String)>;

async fn logs(pool: &PgPool) -> BTreeMap<Uuid, Log> {
    let rows = sqlx::query("SELECT key_id, from_state, to_state FROM encx.audit_log ORDER BY key_id, seq")
        .fetch_all(pool)
        .await
        .unwrap();
    let mut logs: BTreeMap<Uuid, Log> = BTreeMap::new();
    for row in rows {
        let log = logs.entry(row.get("key_id")).or_default();
        log.push((row.get("from_state"), row.get("to_state")));
    }
    logs
}

/// Checks that each change starts where the one before ended, that the state machine allows it, and that the last one
/// is the key's current state.
fn agrees(id: Uuid, log: &Log, now: KeyState) {
    let mut at: Option<&str> = None;
    for (from, to) in log {
        assert_eq!(from.as_deref(), at, "{id}: {log:?}");
        let legal = match at {
            // Shredding leaves a destroyed version for a usage without a key.
            None => matches!(&to[..], "pre-active" | "active" | "destroyed"),
            // New wraps keep the state. A version suspended while active may resume as deactivated.
            Some(from) => from == to || may_become(from).contains(&&to[..]),
        };
        assert!(legal, "{id}: {log:?}");
        at = Some(to);
    }
    assert_eq!(at, Some(now.name()), "{id}: {log:?}");
}

/// The state machine of the design.
fn may_become(from: &str) -> &'static [&'static str] {
    match from {
        "pre-active" => &["active", "suspended", "destroyed"],
        "active" => &["deactivated", "suspended", "compromised"],
        "deactivated" => &["suspended", "compromised", "destroyed"],
        "suspended" => &["pre-active", "active", "deactivated", "compromised", "destroyed"],
        "compromised" => &["destroyed"],
        _ => &[],
    }
}
