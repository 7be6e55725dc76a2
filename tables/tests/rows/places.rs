//! Where ciphertexts are stored: names, ids and contexts of every kind.

use encx::jobs::{JobEnd, JobReport};
use encx::record::{EncryptedColumn, RowIdKind};
use encx::{Ciphertext, EncryptionContext, Field};
use encx_tables::{PlaintextColumn, RowsError};
use uuid::Uuid;

use crate::on_both;
use crate::support::{TestDatabase, UNTIL, ssn};

on_both![
    names_may_be_anything,
    a_composite_id_has_parts_of_every_kind,
    several_columns_are_walked_one_after_the_other,
    a_part_of_a_nested_value_is_bound_to_its_path,
    descriptions_that_fit_nothing_are_said_so,
    jobs_on_different_columns_do_not_replace_each_other,
];

/// Encrypts under a key's first version, rotates, re-encrypts, and opens again.
async fn moves(
    db: &TestDatabase,
    column: EncryptedColumn,
    context: &EncryptionContext,
    rows: Vec<(String, encx::Aad)>,
) {
    let crypto = db.process().await;
    let mut before = Vec::new();
    for (insert, aad) in &rows {
        let sealed = crypto.encrypt(context, "text", aad).await.unwrap();
        db.run(&insert.replace("$CIPHER", &db.literal(sealed.as_bytes())))
            .await;
        before.push(sealed);
    }
    crypto.key_manager().rotate(context).await.unwrap();
    let (table, name) = (column.sql_table.clone(), column.sql_column.clone());
    // Ranges of one row: every position is written and read.
    let job = db.rows().reencrypt(&crypto, [column]).unwrap().range_size(1);
    let report = db.in_time(job.run()).await;
    assert!(report.is_complete(), "{report}");
    assert_eq!(report.run.changed, u64::try_from(rows.len()).unwrap());

    let quoted: Vec<_> = table
        .split('.')
        .map(|part| format!("\"{}\"", part.replace('"', "\"\"")))
        .collect();
    let name = name.replace('"', "\"\"");
    let after = db
        .bytes(&format!("SELECT \"{name}\" FROM {}", quoted.join(".")))
        .await;
    let mut opened = 0;
    for sealed in after.into_iter().flatten() {
        let sealed = Ciphertext::parse(sealed).unwrap();
        assert!(before.iter().all(|before| before.key_id() != sealed.key_id()));
        for (_, aad) in &rows {
            opened += usize::from(crypto.decrypt(context, &sealed, aad).await.is_ok());
        }
    }
    assert_eq!(opened, rows.len());
}

fn context() -> EncryptionContext {
    EncryptionContext::builder()
        .pair("purpose", "pii")
        .build()
        .unwrap()
}

async fn names_may_be_anything(db: TestDatabase) {
    let names = [
        ("People", "Ssn", "Id"),
        ("order", "select", "from"),
        ("größe", "ключ", "数"),
        ("a\"b", "c'd", "e f"),
        ("x; DROP TABLE y", "\"; DROP TABLE y; --", "$1"),
    ];
    for (table, column, id) in names {
        let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
        let (sql_table, sql_column, sql_id) = (quoted(table), quoted(column), quoted(id));
        db.run(&format!(
            "CREATE TABLE {sql_table} ({sql_id} {{int}} PRIMARY KEY, {sql_column} {{bytes}})"
        ))
        .await;
        let described = EncryptedColumn::new("t", "c")
            .stored_in(table, column)
            .row_id(id, RowIdKind::Integer)
            .context_value("purpose", "pii");
        let row = |id: i64| {
            let insert = format!("INSERT INTO {sql_table} VALUES ({id}, $CIPHER)");
            (insert, Field::new("t", "c").row(id))
        };
        moves(&db, described, &context(), vec![row(1), row(2)]).await;
    }
    let schema = if db.is_postgres() { "app" } else { "main" };
    if db.is_postgres() {
        db.run("CREATE SCHEMA app").await;
    }
    db.run(&format!(
        "CREATE TABLE {schema}.users (id {{int}} PRIMARY KEY, ssn {{bytes}})"
    ))
    .await;
    let described = EncryptedColumn::new("users", "ssn")
        .stored_in(format!("{schema}.users"), "ssn")
        .row_id("id", RowIdKind::Integer)
        .context_value("purpose", "pii");
    let insert = format!("INSERT INTO {schema}.users VALUES (1, $CIPHER)");
    let rows = vec![(insert, Field::new("users", "ssn").row(1))];
    moves(&db, described, &context(), rows).await;
}

async fn a_composite_id_has_parts_of_every_kind(db: TestDatabase) {
    db.run(
        "CREATE TABLE notes (a {int}, b {text}, c {bytes}, d {uuid}, note {bytes}, PRIMARY KEY (a, b, c, d))",
    )
    .await;
    let described = EncryptedColumn::new("notes", "note")
        .row_id("a", RowIdKind::Integer)
        .row_id("b", RowIdKind::Text)
        .row_id("c", RowIdKind::Bytes)
        .row_id("d", RowIdKind::Uuid)
        .context_value("purpose", "pii");
    let field = Field::new("notes", "note");
    let mut rows = Vec::new();
    for a in [-1_i64, 0, i64::MAX] {
        for b in ["x", "y"] {
            for c in [vec![1_u8], vec![1, 0]] {
                let d = Uuid::from_u128(u128::from(c.len() as u64) << 64);
                let uuid = if db.is_postgres() {
                    format!("'{d}'")
                } else {
                    db.literal(d.as_bytes())
                };
                let insert = format!(
                    "INSERT INTO notes VALUES ({a}, '{b}', {}, {uuid}, $CIPHER)",
                    db.literal(&c)
                );
                rows.push((insert, field.row((a, b, c, d))));
            }
        }
    }
    moves(&db, described, &context(), rows).await;
}

async fn several_columns_are_walked_one_after_the_other(db: TestDatabase) {
    let crypto = db.process().await;
    let mut columns = Vec::new();
    for (table, rows) in [("a", 5), ("b", 0), ("c", 4)] {
        db.run(&format!(
            "CREATE TABLE {table} (id {{int}} PRIMARY KEY, x {{bytes}})"
        ))
        .await;
        let column = EncryptedColumn::new(table, "x")
            .row_id("id", RowIdKind::Integer)
            .context_value("purpose", "pii");
        let field = Field::try_new(table, "x").unwrap();
        for id in 1..=rows {
            let sealed = crypto.encrypt(&context(), "text", field.row(id)).await.unwrap();
            let sealed = db.literal(sealed.as_bytes());
            db.run(&format!("INSERT INTO {table} VALUES ({id}, {sealed})"))
                .await;
        }
        columns.push(column);
    }
    crypto.key_manager().rotate(&context()).await.unwrap();
    for size in [2, 4, 5, 100] {
        let job = db
            .rows()
            .reencrypt(&crypto, columns.clone())
            .unwrap()
            .range_size(size);
        let dry = db.in_time(job.dry_run().run()).await;
        assert_eq!(dry.run.changed, 9, "in ranges of {size}");
    }
    let job = db
        .rows()
        .reencrypt(&crypto, columns.clone())
        .unwrap()
        .range_size(2);
    assert_eq!(db.in_time(job.run()).await.run.changed, 9);
    let none = db.rows().reencrypt(&crypto, []).unwrap();
    assert!(db.in_time(none.run()).await.is_complete());
}

async fn a_part_of_a_nested_value_is_bound_to_its_path(db: TestDatabase) {
    db.run("CREATE TABLE users (id {int} PRIMARY KEY, street {bytes})")
        .await;
    let described = EncryptedColumn::new("users", "address")
        .stored_in("users", "street")
        .step("street")
        .row_id("id", RowIdKind::Integer)
        .context_value("purpose", "pii");
    let aad = Field::new("users", "address").row_path(1, ["street"]);
    let insert = "INSERT INTO users VALUES (1, $CIPHER)".to_owned();
    moves(&db, described, &context(), vec![(insert, aad)]).await;
}

async fn descriptions_that_fit_nothing_are_said_so(db: TestDatabase) {
    db.run("CREATE TABLE users (id {int} PRIMARY KEY, tenant_id {text}, ssn {bytes}, weight real)")
        .await;
    let crypto = db.process().await;
    let refused = |column: EncryptedColumn| match db.rows().reencrypt(&crypto, [column]) {
        Err(RowsError::Description { what }) => what,
        other => panic!("{other:?}"),
    };
    assert!(refused(EncryptedColumn::new("users", "ssn").context_value("a", "b")).contains("row_id"));
    let no_context = EncryptedColumn::new("users", "ssn").row_id("id", RowIdKind::Integer);
    assert!(refused(no_context).contains("context"));
    assert!(refused(ssn().stored_in("a.b.c", "ssn")).contains("table"));
    assert!(refused(ssn().stored_in("users", "")).contains("column"));

    let wrong = [
        (ssn().stored_in("nowhere", "ssn"), "no table nowhere"),
        (ssn().stored_in("users", "SSN_"), "no column \"SSN_\""),
        (ssn().context_column("region", "region"), "no column \"region\""),
        (ssn().stored_in("users", "tenant_id"), "users.tenant_id is"),
        (ssn().row_id("weight", RowIdKind::Integer), "users.weight is"),
        (ssn().context_column("weight", "weight"), "users.weight is"),
    ];
    let some = db.literal(b"x");
    db.run(&format!("INSERT INTO users VALUES (1, 't-1', {some}, 1.5)"))
        .await;
    for (column, what) in wrong {
        let report = db
            .in_time(db.rows().reencrypt(&crypto, [column]).unwrap().run())
            .await;
        let error = match (&report.ended_by, report.failures.first()) {
            (JobEnd::GaveUp(error), _) => error,
            // In SQLite each row has its own types.
            (_, Some(failure)) if !db.is_postgres() => &failure.error,
            _ => panic!("{report}"),
        };
        assert!(error.to_string().contains(what), "{error}");
        assert!(!error.is_retryable());
    }
}

/// Two columns of one table, and one of another service on the same key store.
async fn jobs_on_different_columns_do_not_replace_each_other(db: TestDatabase) {
    let (ours, theirs) = (db.process().await, db.process().await);
    for table in ["people", "bills"] {
        db
            .run(&format!(
                "CREATE TABLE {table} (id {{int}} PRIMARY KEY, a {{text}}, b {{text}}, xa {{bytes}}, xb {{bytes}})"
            ))
            .await;
        let rows: Vec<_> = (1..=60)
            .map(|id| format!("({id}, 'a', 'b', NULL, NULL)"))
            .collect();
        db.run(&format!("INSERT INTO {table} VALUES {}", rows.join(", ")))
            .await;
    }
    let column = |table: &str, name: &str| {
        EncryptedColumn::new(table, name)
            .row_id("id", RowIdKind::Integer)
            .context_value("purpose", "pii")
    };
    let adopt = |crypto, table, plain, name| {
        let plain = PlaintextColumn::text(plain);
        let jobs = db.rows().adopt(crypto, plain, column(table, name), UNTIL);
        jobs.unwrap()
    };
    let adoptions = [
        adopt(&ours, "people", "a", "xa"),
        adopt(&ours, "people", "b", "xb"),
        adopt(&theirs, "bills", "a", "xa"),
    ];
    let [a, b, c] = &adoptions;
    let complete = |reports: [JobReport; 3], what: &str| {
        for report in reports {
            assert!(report.is_complete(), "{what}: {report}");
            assert_eq!(report.run.changed + report.run.unchanged, 60, "{what}: {report}");
        }
    };
    let all = async {
        tokio::join!(
            a.backfill().range_size(7).run(),
            b.backfill().range_size(7).run(),
            c.backfill().range_size(7).run()
        )
    };
    complete(db.in_time(all).await.into(), "backfill");
    ours.key_manager().rotate(&context()).await.unwrap();
    let reencrypt = |crypto, table, name| {
        let job = db.rows().reencrypt(crypto, [column(table, name)]).unwrap();
        job.range_size(7).run()
    };
    let all = async {
        tokio::join!(
            reencrypt(&ours, "people", "xa"),
            reencrypt(&ours, "people", "xb"),
            reencrypt(&theirs, "bills", "xa")
        )
    };
    complete(db.in_time(all).await.into(), "re-encryption");
    let all = async {
        tokio::join!(
            a.verify().range_size(7).run(),
            b.verify().range_size(7).run(),
            c.verify().range_size(7).run()
        )
    };
    complete(db.in_time(all).await.into(), "verification");
    let all = async {
        tokio::join!(
            a.contract().range_size(7).run(),
            b.contract().range_size(7).run(),
            c.contract().range_size(7).run()
        )
    };
    complete(db.in_time(all).await.into(), "contraction");
}
