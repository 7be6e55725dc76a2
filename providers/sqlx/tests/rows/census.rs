//! Rows are counted by the data key that encrypts them.

use encx::{Error, KeyCensus, KeyState};

use crate::on_both;
use crate::support::{World, ssn, tenant};

on_both![
    rows_are_counted_by_column_and_key,
    a_version_that_rows_use_is_not_destroyed,
    an_index_on_the_keys_bytes_is_used,
];

async fn rows_are_counted_by_column_and_key(world: World) {
    let crypto = world.process().await;
    world.users(&crypto, 31).await;
    world.run("UPDATE users SET ssn = NULL WHERE id = 31").await;
    let garbage = world.literal(b"no ciphertext, and long enough to name something");
    world
        .run(&format!("INSERT INTO users VALUES (100, 't-0', {garbage}, NULL)"))
        .await;
    let census = world.rows().census([ssn()]).unwrap();
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
    let missing = world.rows().census([ssn().stored_in("nowhere", "ssn")]).unwrap();
    assert!(missing.rows_under(active).await.is_err());
}

async fn a_version_that_rows_use_is_not_destroyed(world: World) {
    let crypto = world.process().await;
    world.users(&crypto, 9).await;
    world.rotate(&crypto).await;
    let manager = crypto
        .key_manager()
        .with_census(world.rows().census([ssn()]).unwrap());
    let old = manager.list(&tenant(1)).await.unwrap().remove(0);
    match manager.destroy(&tenant(1), old.id).await {
        Err(Error::StillInUse { columns, .. }) => assert_eq!(columns[0].rows, 3),
        other => panic!("{other:?}"),
    }
    let report = world
        .in_time(world.rows().reencrypt(&crypto, [ssn()]).unwrap().run())
        .await;
    assert!(report.is_complete());
    let gone = manager.destroy(&tenant(1), old.id).await.unwrap();
    assert_eq!(gone.state, KeyState::Destroyed);
    assert_eq!(world.read_users(&crypto).await.0.len(), 9);
}

async fn an_index_on_the_keys_bytes_is_used(world: World) {
    let crypto = world.process().await;
    world.users(&crypto, 300).await;
    let (index, explain) = if world.is_postgres() {
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
    world.run(index).await;
    world.run("ANALYZE").await;
    // As the census says it.
    let key = world.literal(&[0; 16]);
    let query = if world.is_postgres() {
        format!("SELECT count(*) FROM \"users\" AS t WHERE substring(t.\"ssn\" FROM 3 FOR 16) = {key}")
    } else {
        format!("SELECT count(*) FROM \"users\" AS t WHERE substr(t.\"ssn\", 3, 16) = {key}")
    };
    let plan = world.plan(&format!("{explain} {query}")).await;
    assert!(plan.contains("users_ssn_key"), "{plan}");
}
