//! Ciphertext columns are found and compared with descriptions.

use encx::record::{EncryptedColumn, RowIdKind};
use encx_tables::RowsError;

use crate::on_both;
use crate::support::{TestDatabase, ssn};

on_both![
    columns_that_look_sealed_are_found_wherever_they_are,
    a_column_that_differs_from_its_description_is_said_so,
    rows_are_estimated,
];

async fn columns_that_look_sealed_are_found_wherever_they_are(db: TestDatabase) {
    let crypto = db.process().await;
    db.users(&crypto, 30).await;
    db.run("CREATE TABLE \"Odd.\"\"Name\" (id {int} PRIMARY KEY, \"Sealed Value\" {bytes}, absent {bytes})")
        .await;
    db.run("INSERT INTO \"Odd.\"\"Name\" SELECT id, ssn, NULL FROM users")
        .await;
    // Other bytes, and keys that the store does not have.
    db.run("CREATE TABLE blobs (id {int} PRIMARY KEY, image {bytes}, few {bytes}, foreign_key {bytes})")
        .await;
    let (png, digest) = (db.literal(b"\x89PNG\r\n\x1a\n"), db.literal(&[1; 32]));
    db.run(&format!(
        "INSERT INTO blobs SELECT id, {png}, {digest}, {digest} FROM users"
    ))
    .await;
    db.run("UPDATE blobs SET few = (SELECT ssn FROM users WHERE id = 3) WHERE id = 3")
        .await;
    let mut unknown = vec![1, 1];
    unknown.extend(uuid::Uuid::from_u128(0x0190_163d_8694_739a_abb7_1bb3_fa4d_6a6f).as_bytes());
    unknown.resize(100, 7);
    let unknown = db.literal(&unknown);
    db.run(&format!("UPDATE blobs SET foreign_key = {unknown} WHERE id = 1"))
        .await;
    db.run("CREATE VIEW seen AS SELECT ssn FROM users").await;
    let mut expected = vec![
        ("\"Odd.\"\"Name\"".to_owned(), "Sealed Value", 30, 30, 30),
        ("blobs".to_owned(), "few", 30, 1, 1),
        ("blobs".to_owned(), "foreign_key", 30, 1, 0),
        ("users".to_owned(), "ssn", 30, 30, 30),
    ];
    if db.is_postgres() {
        for statement in [
            "CREATE SCHEMA app",
            "CREATE DOMAIN app.sealed AS bytea",
            "CREATE TABLE app.users (id bigint, ssn app.sealed, at int) PARTITION BY RANGE (id)",
            "CREATE TABLE app.users_1 PARTITION OF app.users FOR VALUES FROM (0) TO (1000)",
            "INSERT INTO app.users SELECT id, ssn, 1 FROM users",
        ] {
            db.run(statement).await;
        }
        expected.push(("app.users".to_owned(), "ssn", 30, 30, 30));
    }
    let found = db.rows().sealed_columns(&db.keys).await.unwrap();
    let mut summary: Vec<_> = found
        .iter()
        .map(|of| {
            (
                of.table.clone(),
                of.column.as_str(),
                of.looked_at,
                of.sealed,
                of.known_keys,
            )
        })
        .collect();
    summary.sort();
    expected.sort();
    assert_eq!(summary, expected);

    let of = |table: &str| {
        found
            .iter()
            .find(|of| of.table == table && of.column != "few")
            .unwrap()
    };
    let described = |table: &str, column: &str| EncryptedColumn::new(table, column);
    let schema = if db.is_postgres() { "public" } else { "main" };
    assert!(of("users").is(&ssn()) && of("users").is(&described(&format!("{schema}.users"), "ssn")));
    assert!(!of("users").is(&described("users", "email")));
    assert!(!of("users").is(&described("app.users", "ssn")));
    assert!(of("\"Odd.\"\"Name\"").is(&described("\"Odd.\"\"Name\"", "Sealed Value")));
    if db.is_postgres() {
        assert!(of("app.users").is(&described("app.users", "ssn")) && !of("app.users").is(&ssn()));
        assert!(!of("users").is(&described("Users", "ssn")));
    } else {
        assert!(of("users").is(&described("Users", "SSN")));
    }
    // A description made from the result refers to that column.
    for found in &found {
        let described = described(&found.table, &found.column).row_id("id", RowIdKind::Integer);
        assert!(found.is(&described));
        let described = described.context_value("purpose", "pii");
        db.rows().check_column(&described).await.unwrap();
    }
}

async fn a_column_that_differs_from_its_description_is_said_so(db: TestDatabase) {
    let crypto = db.process().await;
    db.users(&crypto, 3).await;
    let rows = db.rows();
    rows.check_column(&ssn()).await.unwrap();
    let table = ssn().stored_in("nowhere", "ssn");
    assert!(matches!(
        rows.check_column(&table).await,
        Err(RowsError::NoSuchTable { .. })
    ));
    let column = ssn().stored_in("users", "email");
    assert!(matches!(
        rows.check_column(&column).await,
        Err(RowsError::NoSuchColumn { .. })
    ));
    let context = ssn().context_column("region", "region");
    assert!(matches!(
        rows.check_column(&context).await,
        Err(RowsError::NoSuchColumn { .. })
    ));
    let description = EncryptedColumn::new("users", "ssn");
    assert!(matches!(
        rows.check_column(&description).await,
        Err(RowsError::Description { .. })
    ));
    if db.is_postgres() {
        let text = ssn().stored_in("users", "plain");
        assert!(matches!(
            rows.check_column(&text).await,
            Err(RowsError::ColumnType { .. })
        ));
    }
}

async fn rows_are_estimated(db: TestDatabase) {
    let crypto = db.process().await;
    db.users(&crypto, 300).await;
    let rows = db.rows();
    assert_eq!(rows.estimated_rows(&ssn()).await.unwrap(), 300);
    db.run("UPDATE users SET ssn = NULL WHERE id > 100").await;
    db.run("ANALYZE").await;
    let estimated = rows.estimated_rows(&ssn()).await.unwrap();
    assert!((90..=110).contains(&estimated), "{estimated}");
    let gone = ssn().stored_in("nowhere", "ssn");
    assert!(rows.estimated_rows(&gone).await.is_err());
}
