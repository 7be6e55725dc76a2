//! Rows are counted by their data key.

use std::time::Duration;

use encx::keys::{Destruction, KeyState};
use encx::store::KeyCensus;
use encx::{Ciphertext, Error};
use encx_test_support::SSN;

use crate::on_both;
use crate::support::{TestDatabase, USERS, ssn, tenant};

on_both![
    rows_are_counted_by_column_and_key,
    a_version_that_rows_use_is_not_destroyed,
    a_row_that_is_not_committed_yet_is_not_lost,
    an_index_on_the_keys_bytes_is_used,
];

async fn rows_are_counted_by_column_and_key(db: TestDatabase) {
    let crypto = db.process().await;
    db.users(&crypto, 31).await;
    db.run("UPDATE users SET ssn = NULL WHERE id = 31").await;
    let garbage = db.literal(b"no ciphertext, and long enough to name something");
    db.run(&format!("INSERT INTO users VALUES (100, 't-0', {garbage}, NULL)"))
        .await;
    let census = db.rows().census([ssn()]).unwrap();
    let counts = census.count().await.unwrap();
    let named: Vec<_> = counts.iter().filter(|count| count.key.is_some()).collect();
    assert_eq!(named.len(), 3);
    assert!(
        named
            .iter()
            .all(|count| count.rows == 10 && count.table == "users" && count.column == "ssn")
    );
    let unnamed: Vec<_> = counts.iter().filter(|count| count.key.is_none()).collect();
    assert_eq!((unnamed.len(), unnamed[0].rows), (1, 1));

    let active = crypto.key_manager().list(&tenant(1)).await.unwrap()[0].id;
    let under = census.rows_under(active).await.unwrap();
    assert_eq!((under.len(), under[0].rows), (1, 10));
    let missing = db.rows().census([ssn().stored_in("nowhere", "ssn")]).unwrap();
    assert!(missing.rows_under(active).await.is_err());
}

async fn a_version_that_rows_use_is_not_destroyed(db: TestDatabase) {
    let crypto = db.process().await;
    db.users(&crypto, 9).await;
    db.rotate(&crypto).await;
    let manager = crypto
        .key_manager()
        .with_census(db.rows().census([ssn()]).unwrap());
    let old = manager.list(&tenant(1)).await.unwrap().remove(0);
    match db.in_time(manager.destroy(&tenant(1), old.id)).await {
        Err(Error::StillInUse { columns, .. }) => assert_eq!(columns[0].rows, 3),
        other => panic!("{other:?}"),
    }
    let report = db
        .in_time(db.rows().reencrypt(&crypto, [ssn()]).unwrap().run())
        .await;
    assert!(report.is_complete());
    let suspended = db.in_time(manager.destroy(&tenant(1), old.id)).await.unwrap();
    assert!(
        matches!(suspended, Destruction::Quarantined { .. }),
        "{suspended:?}"
    );
    db.clock.advance(Duration::from_secs(24 * 60 * 60));
    let gone = db.in_time(manager.destroy(&tenant(1), old.id)).await.unwrap();
    assert!(gone.is_destroyed(), "{gone:?}");
    assert_eq!(db.read_users(&crypto).await.0.len(), 9);
}

async fn a_row_that_is_not_committed_yet_is_not_lost(db: TestDatabase) {
    let crypto = db.process().await;
    db.run(USERS).await;
    let sealed = crypto.encrypt(&tenant(1), "precious", SSN.row(1)).await.unwrap();
    let literal = db.literal(sealed.as_bytes());
    let insert = format!("INSERT INTO users VALUES (1, 't-1', {literal}, NULL)");
    let transaction = db.transaction(&insert).await;
    crypto.key_manager().rotate(&tenant(1)).await.unwrap();
    let census = db.impatient_rows().await.census([ssn()]).unwrap();
    let manager = crypto.key_manager().with_census(census);
    let manager = manager.without_quarantine("a test");
    let id = sealed.key_id();
    let waiting = db.in_time(manager.destroy(&tenant(1), id)).await.unwrap();
    match waiting {
        Destruction::AwaitingTransactions { record, open } => {
            assert_eq!(record.state, KeyState::Suspended);
            assert!(open.oldest.is_some(), "{open:?}");
        }
        other => panic!("{other:?}"),
    }
    transaction.commit().await;
    match db.in_time(manager.destroy(&tenant(1), id)).await {
        Err(Error::StillInUse { columns, .. }) => assert_eq!(columns[0].rows, 1),
        other => panic!("{other:?}"),
    }
    let context = tenant(1);
    manager
        .set_state(&context, id, KeyState::Deactivated)
        .await
        .unwrap();
    let read = async || {
        let found = db.bytes("SELECT ssn FROM users WHERE id = 1").await.remove(0);
        let found = Ciphertext::parse(found.unwrap()).unwrap();
        let opened = crypto.decrypt(&tenant(1), &found, SSN.row(1)).await.unwrap();
        (opened.into_string().unwrap(), found.key_id())
    };
    assert_eq!(read().await, ("precious".to_owned(), id));
    let report = db.rows().reencrypt(&crypto, [ssn()]).unwrap();
    assert!(db.in_time(report.run()).await.is_complete());
    let gone = db.in_time(manager.destroy(&tenant(1), id)).await.unwrap();
    assert!(gone.is_destroyed(), "{gone:?}");
    assert_eq!(read().await.0, "precious");
}

async fn an_index_on_the_keys_bytes_is_used(db: TestDatabase) {
    let crypto = db.process().await;
    db.users(&crypto, 300).await;
    let (index, explain) = if db.is_postgres() {
        (
            "CREATE INDEX users_ssn_key ON users (substring(ssn FROM 3 FOR 16))",
            "EXPLAIN",
        )
    } else {
        (
            "CREATE INDEX users_ssn_key ON users (substr(ssn, 3, 16))",
            "EXPLAIN QUERY PLAN",
        )
    };
    db.run(index).await;
    db.run("ANALYZE").await;
    // The query of the census.
    let key = db.literal(&[0; 16]);
    let query = if db.is_postgres() {
        format!("SELECT count(*) FROM \"users\" AS t WHERE substring(t.\"ssn\" FROM 3 FOR 16) = {key}")
    } else {
        format!("SELECT count(*) FROM \"users\" AS t WHERE substr(t.\"ssn\", 3, 16) = {key}")
    };
    let plan = db.plan(&format!("{explain} {query}")).await;
    assert!(plan.contains("users_ssn_key"), "{plan}");
}
