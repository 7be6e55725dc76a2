//! A table with encrypted rows in the key store's database.

use std::fmt::Write as _;
use std::ops::Range;

use encx::{Crypto, EncryptionContext, Field};
use encx_config::Loader;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, SqliteConnection};

use crate::support::{Database, Place};

/// Declares the table's column.
pub(crate) const SSN: &str = r#"
[[column]]
table = "users"
column = "ssn"
id = { column = "id", kind = "integer" }
context = { tenantId = { column = "tenant_id" }, purpose = "pii" }
"#;

const FIELD: Field = Field::new("users", "ssn");

/// Creates a table like `users`.
pub(crate) fn create_table(place: &Place, table: &str) {
    place.sql(
        &format!("CREATE TABLE {table} (id bigint PRIMARY KEY, tenant_id text NOT NULL, ssn bytea)"),
        &format!("CREATE TABLE {table} (id INTEGER PRIMARY KEY, tenant_id TEXT NOT NULL, ssn BLOB)"),
    );
}

/// Returns the encryption context of a tenant's rows.
pub(crate) fn context_of(tenant: &str) -> EncryptionContext {
    EncryptionContext::from_pairs([("tenantId", tenant), ("purpose", "pii")]).unwrap()
}

/// Adds rows as the service does, alternating tenants.
pub(crate) fn add_rows(place: &Place, table: &str, ids: Range<i64>, tenants: i64) {
    let rows = with_crypto(place, async |crypto| {
        let mut rows = String::new();
        for id in ids {
            let tenant = format!("t-{}", id % tenants);
            let sealed = crypto
                .encrypt(&context_of(&tenant), format!("ssn {id}"), FIELD.row(id))
                .await
                .unwrap();
            let hex: String = sealed
                .as_bytes()
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            let literal = match place.database {
                Database::Postgres => format!("'\\x{hex}'"),
                Database::Sqlite => format!("X'{hex}'"),
            };
            write!(
                rows,
                "{}({id}, '{tenant}', {literal})",
                if rows.is_empty() { "" } else { ", " }
            )
            .unwrap();
        }
        rows
    });
    let insert = format!("INSERT INTO {table} VALUES {rows}");
    place.sql(&insert, &insert);
}

/// Runs `work` with a `Crypto` of the place's settings, as a service would.
pub(crate) fn with_crypto<T>(place: &Place, work: impl AsyncFnOnce(&Crypto) -> T) -> T {
    block_on(async {
        let settings = Loader::new().env(place.env.clone()).load().unwrap();
        let crypto = settings.crypto().await.unwrap();
        let done = work(&crypto).await;
        crypto.shutdown().await;
        done
    })
}

/// Queries one number. In the query, `{key}` stands for the bytes of `ssn` that name its key.
pub(crate) fn number(place: &Place, on_postgres: &str, on_sqlite: &str) -> i64 {
    let url = &place.env["ENCX_KEY_STORE"];
    block_on(async {
        match place.database {
            Database::Postgres => {
                let query = on_postgres.replace("{key}", "substring(ssn FROM 3 FOR 16)");
                let mut connection = PgConnection::connect(url).await.unwrap();
                let query = sqlx::query_scalar(AssertSqlSafe(query));
                query.fetch_one(&mut connection).await.unwrap()
            }
            Database::Sqlite => {
                let query = on_sqlite.replace("{key}", "substr(ssn, 3, 16)");
                let mut connection = SqliteConnection::connect(url).await.unwrap();
                let query = sqlx::query_scalar(AssertSqlSafe(query));
                query.fetch_one(&mut connection).await.unwrap()
            }
        }
    })
}

/// Registers a process that never follows a change while it is registered.
pub(crate) fn add_silent_process(place: &Place) {
    place.sql(
        "INSERT INTO encx.processes (id, name, serves_for, started_at, seen_at, acknowledged)
         VALUES (gen_random_uuid(), 'billing-7', 3600000000, now(), now() + interval '1 day', 0)",
        "INSERT INTO encx_processes (id, name, serves_for, started_at, seen_at, acknowledged)
         VALUES (randomblob(16), 'billing-7', 3600000000, 0, 9000000000000000, 0)",
    );
}

/// Deletes all registered processes, as if they had expired.
pub(crate) fn forget_processes(place: &Place) {
    place.sql("DELETE FROM encx.processes", "DELETE FROM encx_processes");
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(work)
}
