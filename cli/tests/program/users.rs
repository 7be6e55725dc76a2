//! A service's table of users in the key store's database.

use encx::{Crypto, EncryptionContext, Field};
use encx_config::Loader;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, SqliteConnection};

use crate::support::{Database, Place};

pub(crate) const SSN: Field = Field::new("users", "ssn");

/// The table's declaration in encx.toml.
const DECLARED: &str = "[[column]]\ntable = \"users\"\ncolumn = \"ssn\"\nid = { column = \"id\", kind = \"integer\" }\n\
     context = { tenantId = { column = \"tenant_id\" }, purpose = \"pii\" }\n";

pub(crate) fn tenant(id: i64) -> EncryptionContext {
    let tenant = format!("t-{}", id % 3);
    EncryptionContext::from_pairs([("tenantId", tenant.as_str()), ("purpose", "pii")]).unwrap()
}

pub(crate) fn value(id: i64) -> String {
    format!("secret of user {id}")
}

/// Runs a future on a runtime.
pub(crate) fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Runtime::new().unwrap().block_on(future)
}

/// Opens a `Crypto` as a process of the service, with the program's settings.
pub(crate) async fn service(place: &Place) -> Crypto {
    let variables = place
        .env
        .iter()
        .map(|(name, value)| (name.clone(), value.clone()));
    let loader = Loader::new().env(variables).file(place.path("encx.toml"));
    loader.load().unwrap().crypto().await.unwrap()
}

/// Declares the table, with `more` lines after its column's.
pub(crate) fn declare(place: &Place, more: &str) {
    place.write_private("encx.toml", &format!("{DECLARED}{more}"));
}

/// Creates the table with rows 1 to `rows`, each encrypted under its tenant's context.
pub(crate) fn fill(place: &Place, rows: i64) {
    create(place);
    declare(place, "");
    wait(async {
        let crypto = service(place).await;
        let mut values = Vec::new();
        for id in 1..=rows {
            let sealed = crypto.encrypt(&tenant(id), value(id), SSN.row(id)).await.unwrap();
            values.push(format!(
                "({id}, 't-{}', {})",
                id % 3,
                literal(place, sealed.as_bytes())
            ));
        }
        crypto.shutdown().await;
        for some in values.chunks(500) {
            let insert = format!(
                "INSERT INTO users (id, tenant_id, ssn) VALUES {}",
                some.join(", ")
            );
            execute(place, &insert).await;
        }
    });
}

/// Creates the table without rows.
pub(crate) fn create(place: &Place) {
    place.sql(
        "CREATE TABLE users (id bigint PRIMARY KEY, tenant_id text, ssn bytea, plain text)",
        "CREATE TABLE users (id integer PRIMARY KEY, tenant_id text, ssn blob, plain text)",
    );
}

/// Runs a statement that changes rows.
pub(crate) fn update(place: &Place, statement: &str) {
    place.sql(statement, statement);
}

async fn execute(place: &Place, statement: &str) {
    let (url, statement) = (&place.env["ENCX_KEY_STORE"], AssertSqlSafe(statement.to_owned()));
    match place.database {
        Database::Postgres => {
            let mut connection = PgConnection::connect(url).await.unwrap();
            sqlx::query(statement).execute(&mut connection).await.unwrap();
        }
        Database::Sqlite => {
            let mut connection = SqliteConnection::connect(url).await.unwrap();
            sqlx::query(statement).execute(&mut connection).await.unwrap();
        }
    }
}

/// Queries one number.
pub(crate) fn number(place: &Place, query: &str) -> i64 {
    let (url, query) = (&place.env["ENCX_KEY_STORE"], AssertSqlSafe(query.to_owned()));
    wait(async {
        match place.database {
            Database::Postgres => {
                let mut connection = PgConnection::connect(url).await.unwrap();
                sqlx::query_scalar(query)
                    .fetch_one(&mut connection)
                    .await
                    .unwrap()
            }
            Database::Sqlite => {
                let mut connection = SqliteConnection::connect(url).await.unwrap();
                sqlx::query_scalar(query)
                    .fetch_one(&mut connection)
                    .await
                    .unwrap()
            }
        }
    })
}

/// Formats bytes as the database's literal.
pub(crate) fn literal(place: &Place, bytes: &[u8]) -> String {
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    match place.database {
        Database::Postgres => format!("'\\x{hex}'::bytea"),
        Database::Sqlite => format!("x'{hex}'"),
    }
}

/// Counts the rows that decrypt to the value they were given.
pub(crate) fn opened(place: &Place) -> i64 {
    wait(async {
        let url = &place.env["ENCX_KEY_STORE"];
        let select = "SELECT id, ssn FROM users WHERE ssn IS NOT NULL ORDER BY id";
        let rows: Vec<(i64, Vec<u8>)> = match place.database {
            Database::Postgres => {
                let mut connection = PgConnection::connect(url).await.unwrap();
                sqlx::query_as(select).fetch_all(&mut connection).await.unwrap()
            }
            Database::Sqlite => {
                let mut connection = SqliteConnection::connect(url).await.unwrap();
                sqlx::query_as(select).fetch_all(&mut connection).await.unwrap()
            }
        };
        let crypto = service(place).await;
        let mut opened = 0;
        for (id, sealed) in rows {
            let sealed = encx::Ciphertext::parse(sealed).unwrap();
            let found = crypto.decrypt(&tenant(id), &sealed, SSN.row(id)).await;
            opened += i64::from(found.is_ok_and(|found| found.as_str().is_ok_and(|text| text == value(id))));
        }
        crypto.shutdown().await;
        opened
    })
}
