//! Tries to open rows under one key.

use encx::Error;
use encx::jobs::JobError;
use encx_test_support::MINUTE;

use crate::on_both;
use crate::support::{TestDatabase, ssn, tenant};

on_both![rows_under_a_key_open_until_it_is_destroyed];

async fn rows_under_a_key_open_until_it_is_destroyed(db: TestDatabase) {
    let crypto = db.process().await;
    db.users(&crypto, 30).await;
    let manager = crypto.key_manager();
    let key = manager.list(&tenant(1)).await.unwrap()[0].id;
    let rows = db.rows();
    let context = tenant(1);
    let under = |limit| rows.try_open_under(&crypto, ssn(), &context, key, limit);
    let tried = under(100).await.unwrap();
    assert_eq!(tried.len(), 10);
    assert!(tried.iter().all(|row| row.opened.is_ok()), "{tried:?}");
    assert_eq!(under(3).await.unwrap().len(), 3);
    // A ciphertext in another tenant's row still counts as under the key.
    db.run("UPDATE users SET tenant_id = 't-9' WHERE id = 1").await;
    let garbage = db.literal(b"no ciphertext, and long enough to name something");
    db.run(&format!("INSERT INTO users VALUES (100, 't-1', {garbage}, NULL)"))
        .await;
    assert_eq!(under(100).await.unwrap().len(), 10);

    let receipt = db.in_time(manager.shred(&tenant(1), MINUTE)).await.unwrap();
    assert_eq!(receipt.versions.len(), 1);
    let tried = under(100).await.unwrap();
    assert_eq!(tried.len(), 10);
    for row in tried {
        assert!(row.row.starts_with("users.ssn of row "), "{}", row.row);
        assert!(
            matches!(
                row.opened,
                Err(JobError::Encx(Error::Shredded | Error::Destroyed { .. }))
            ),
            "{:?}",
            row.opened
        );
    }
    let missing = ssn().stored_in("nowhere", "ssn");
    let refused = rows.try_open_under(&crypto, missing, &tenant(1), key, 1).await;
    assert!(refused.is_err());
}
