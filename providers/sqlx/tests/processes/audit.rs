//! The audit log: who changed what, from which state to which, when and why, for all operations of a key manager.

use encx::keys::{KeyManager, KeyState};
use encx::kms::{KekChoice, KekId, KekRef, KeyManagementService, KmsName};
use encx::{Crypto, EncryptionContext};
use encx_sqlx::PostgresKeyStore;
use encx_testkit::MemoryKms;
use sqlx::Row;

use crate::common::postgres::on_a_database;

#[test]
fn whatever_a_manager_does_stands_in_the_log_with_its_reason() {
    on_a_database(|database| async move {
        let store = PostgresKeyStore::connect(&database.url()).await.unwrap();
        store.migrate().await.unwrap();
        let kms = MemoryKms::new().with_kek("kek-2");
        let first = KekRef::new(KmsName::default(), kms.default_kek().unwrap().clone());
        let second = KekRef::new(KmsName::default(), KekId::new("kek-2").unwrap());
        let context = EncryptionContext::builder()
            .pair("tenantId", "t")
            .build()
            .unwrap();
        let manager = |choice: KekChoice| -> KeyManager {
            let crypto = Crypto::builder(kms.clone(), store.clone())
                .kek_rule(move |_| Some(choice.clone()))
                .also_unwrap(first.clone());
            crypto.build_key_manager().unwrap()
        };
        let before = KekChoice::new(first.clone());
        let after = KekChoice::new(second.clone());
        let both = KekChoice::new(second).also_wrap(first.clone());

        let born = manager(before.clone())
            .because("a new tenant")
            .create(&context)
            .await
            .unwrap();
        let next = manager(before.clone())
            .because("yearly")
            .rotate(&context)
            .await
            .unwrap();
        let moved = manager(after)
            .because("a new region")
            .rewrap(&context)
            .await
            .unwrap();
        assert_eq!(moved.len(), 2);
        let report = manager(both)
            .because("a second region")
            .complete_wraps()
            .await
            .unwrap();
        assert_eq!((report.completed.len(), report.failed.len()), (2, 0));
        let manager = manager(before).because("an incident");
        for state in [KeyState::Suspended, KeyState::Active] {
            manager.set_state(&context, next.id, state).await.unwrap();
        }
        let skipping = manager.clone().without_quarantine("rows were copied");
        assert!(skipping.destroy(&context, born.id).await.unwrap().is_destroyed());
        // A refused change leaves nothing.
        manager.destroy(&context, next.id).await.unwrap_err();
        manager
            .set_state(&context, next.id, KeyState::Compromised)
            .await
            .unwrap();
        manager
            .destroy_with_data(&context, next.id, "a leak")
            .await
            .unwrap();

        let rows = sqlx::query(
            "SELECT k.version, what, from_state, to_state, reason, application,
                    db_user = session_user AND a.scope = k.scope AND at <= k.changed_at AND at >= k.created_at AS fits
             FROM encx.audit_log a JOIN encx.data_keys k ON k.id = key_id ORDER BY seq",
        )
        .fetch_all(&mut database.connection().await)
        .await
        .unwrap();
        let executable = std::env::current_exe().unwrap();
        let executable = executable.file_name().unwrap().to_str().unwrap();
        let found: Vec<_> = rows
            .iter()
            .map(|row| {
                assert!(row.get::<bool, _>("fits"));
                assert_eq!(row.get::<&str, _>("application"), executable);
                (
                    row.get::<i32, _>("version"),
                    row.get::<&str, _>("what"),
                    row.get::<Option<&str>, _>("from_state").unwrap_or(""),
                    row.get::<&str, _>("to_state"),
                    row.get::<Option<&str>, _>("reason").unwrap_or(""),
                )
            })
            .collect();
        assert_eq!(
            found,
            [
                (1, "added", "", "active", "a new tenant"),
                (2, "added", "", "pre-active", "yearly"),
                (1, "state", "active", "deactivated", "yearly"),
                (2, "state", "pre-active", "active", "yearly"),
                (1, "wraps", "deactivated", "deactivated", "a new region"),
                (2, "wraps", "active", "active", "a new region"),
                (1, "wraps", "deactivated", "deactivated", "a second region"),
                (2, "wraps", "active", "active", "a second region"),
                (2, "state", "active", "suspended", "an incident"),
                (2, "state", "suspended", "active", "an incident"),
                (
                    1,
                    "state",
                    "deactivated",
                    "suspended",
                    "without_quarantine: rows were copied; an incident"
                ),
                (
                    1,
                    "state",
                    "suspended",
                    "destroyed",
                    "without_quarantine: rows were copied; an incident"
                ),
                (2, "state", "active", "compromised", "an incident"),
                (
                    2,
                    "state",
                    "compromised",
                    "destroyed",
                    "destroy_with_data: a leak; an incident"
                ),
            ]
        );
    });
}
