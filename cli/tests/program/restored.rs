//! `encx shred` after a restore: it finds what came back, and destroys it again.

use crate::sealed::{context_of, with_crypto};
use crate::shred::{findings, none_of, plan, receipts, replay, run, states, verify, with_tenants};
use crate::support::{Place, on_both};

/// Copies the rows of the key tables, as a backup does.
fn back_up(place: &Place) {
    place.sql(
        "CREATE TABLE backup_keys AS SELECT * FROM encx.data_keys; CREATE TABLE backup_wraps AS SELECT * FROM encx.wrapped_keys",
        "CREATE TABLE backup_keys AS SELECT * FROM encx_data_keys; CREATE TABLE backup_wraps AS SELECT * FROM encx_wrapped_keys",
    );
}

/// Restores the copied rows.
fn restore(place: &Place) {
    let restore = |keys: &str, wraps: &str| {
        format!(
            "DELETE FROM {wraps}; DELETE FROM {keys}; INSERT INTO {keys} SELECT * FROM backup_keys; \
             INSERT INTO {wraps} SELECT * FROM backup_wraps"
        )
    };
    place.sql(
        &restore("encx.data_keys", "encx.wrapped_keys"),
        &restore("encx_data_keys", "encx_wrapped_keys"),
    );
}

#[test]
fn a_restored_backup_is_found_and_destroyed_again() {
    on_both(|place| {
        with_tenants(&place);
        back_up(&place);
        plan(&place);
        run(&place, &["--yes"]).expect(0);
        assert_eq!(findings(&verify(&place).expect(0)), none_of(2));
        restore(&place);
        let found = verify(&place).expect(3).says("encx shred replay");
        let found = findings(&found);
        assert!(found.contains(&vec!["alive".to_owned()]), "{found:?}");
        assert!(
            found.contains(&vec!["alive".to_owned(), "opens".to_owned()]),
            "{found:?}"
        );
        replay(&place, &["--dry-run"])
            .expect(3)
            .says("would destroy 3 versions of 2 contexts again");
        assert_eq!(states(&place), ["deactivated", "active"]);

        replay(&place, &["--yes"]).expect(0);
        assert_eq!(states(&place), ["destroyed", "destroyed"]);
        let written = receipts(&place);
        let replayed: Vec<_> = written
            .iter()
            .map(|receipt| receipt["replay_of"].as_u64())
            .collect();
        assert_eq!(replayed.len(), 4);
        assert_eq!(replayed[..2], [None, None]);
        let mut of = replayed[2..].to_vec();
        of.sort_unstable();
        assert_eq!(of, [Some(1), Some(2)]);
        assert_eq!(written[2]["reason"], "restored from a backup");
        assert_eq!(findings(&verify(&place).expect(0)), none_of(4));
        replay(&place, &["--yes"])
            .expect(0)
            .says("is destroyed, or not there");
        assert_eq!(receipts(&place).len(), 4);
    });
}

#[test]
fn a_version_that_was_made_since_survives_a_replay() {
    on_both(|place| {
        with_tenants(&place);
        back_up(&place);
        plan(&place);
        run(&place, &["--yes"]).expect(0);
        place.ok(&["keys", "revive", "-c", "tenantId=t-1", "-c", "purpose=pii"]);
        let revived = verify(&place).expect(0);
        assert!(
            revived
                .stdout
                .contains("revived since: version 3 (data) is active"),
            "{}",
            revived.stdout
        );
        // The restore brings back part of the backup: the deactivated version and its wrap.
        place.sql(
            "UPDATE encx.data_keys k SET state = b.state, destroyed_at = NULL, revision = b.revision FROM backup_keys b \
             WHERE b.id = k.id AND b.state = 'deactivated'; INSERT INTO encx.wrapped_keys SELECT w.* FROM backup_wraps w \
             JOIN backup_keys b ON b.id = w.key_id WHERE b.state = 'deactivated'",
            "UPDATE encx_data_keys SET state = 'deactivated', destroyed_at = NULL WHERE id IN (SELECT id FROM backup_keys WHERE \
             state = 'deactivated'); INSERT INTO encx_wrapped_keys SELECT w.* FROM backup_wraps w JOIN backup_keys b ON \
             b.id = w.key_id WHERE b.state = 'deactivated'",
        );
        assert_eq!(states(&place), ["deactivated", "destroyed", "active"]);
        verify(&place).expect(3);
        replay(&place, &["--yes"])
            .expect(0)
            .says("those that were made since stay");
        assert_eq!(states(&place), ["destroyed", "destroyed", "active"]);
        let last = receipts(&place).pop().unwrap();
        assert_eq!(last["versions"].as_array().unwrap().len(), 1, "{last}");
        assert!(last["replay_of"].is_u64(), "{last}");
        let verified = verify(&place).expect(0);
        assert!(
            findings(&verified).iter().all(Vec::is_empty),
            "{}",
            verified.stdout
        );
        // The revived version encrypts.
        with_crypto(&place, async |crypto| {
            let aad = encx::Field::new("users", "ssn").row(1);
            crypto.encrypt(&context_of("t-1"), "x", aad).await.unwrap();
        });
        // Running the plan again destroys nothing more, although its receipts exist.
        run(&place, &["--yes"])
            .expect(0)
            .says("every context of the plan is destroyed");
        assert_eq!(states(&place), ["destroyed", "destroyed", "active"]);
    });
}
