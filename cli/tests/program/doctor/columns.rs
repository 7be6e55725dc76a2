//! Missing declared columns, and undeclared columns with ciphertexts.

use encx::{EncryptionContext, Field};
use encx_config::Loader;
use sqlx::{Connection as _, PgConnection, SqliteConnection};

use super::{Ward, on_both};

const SSN: Field = Field::new("users", "ssn");

const DECLARED: &str = "[[column]]\ntable = \"users\"\ncolumn = \"ssn\"\nid = { column = \"id\", kind = \"integer\" }\n\
                        context = { tenantId = \"t-1\" }\n";

/// Creates a table with encrypted rows that the service may read.
fn users(ward: &Ward) {
    ward.sql(
        "CREATE TABLE users (id bigint PRIMARY KEY, ssn bytea, photo bytea);
         INSERT INTO users SELECT n, NULL, '\\x89504e47' FROM generate_series(1, 20) n;
         GRANT SELECT ON users TO PUBLIC",
        "CREATE TABLE users (id INTEGER PRIMARY KEY, ssn BLOB, photo BLOB);
         INSERT INTO users VALUES (1, NULL, x'89504e47'), (2, NULL, x'89504e47'), (3, NULL, NULL)",
    );
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.unwrap().block_on(async {
        let settings = Loader::new().env(ward.place.env.clone()).load().unwrap();
        let crypto = settings.crypto().await.unwrap();
        let context = EncryptionContext::from_pairs([("tenantId", "t-1")]).unwrap();
        for id in 1..=3_i64 {
            let sealed = crypto
                .encrypt(&context, "123-45-6789", SSN.row(id))
                .await
                .unwrap();
            if ward.is_postgres() {
                let mut connection = PgConnection::connect(&ward.admin).await.unwrap();
                let update = sqlx::query("UPDATE users SET ssn = $2 WHERE id = $1");
                let update = update.bind(id).bind(sealed.as_bytes().to_vec());
                update.execute(&mut connection).await.unwrap();
            } else {
                let mut connection = SqliteConnection::connect(&ward.admin).await.unwrap();
                let update = sqlx::query("UPDATE users SET ssn = ?2 WHERE id = ?1");
                let update = update.bind(id).bind(sealed.as_bytes().to_vec());
                update.execute(&mut connection).await.unwrap();
            }
        }
        crypto.shutdown().await;
    });
}

#[test]
fn a_column_that_was_left_out() {
    on_both(|ward| {
        users(&ward);
        ward.finds(&[("column-undeclared", "error")])
            .says("users.ssn")
            .says("3 of 3 values")
            .checked_all();
        ward.place.write_private("encx.toml", DECLARED);
        ward.finds(&[]).checked_all();
    });
}

#[test]
fn a_declared_column_that_is_gone() {
    on_both(|ward| {
        users(&ward);
        ward.place.write_private("encx.toml", DECLARED);
        ward.sql(
            "ALTER TABLE users RENAME COLUMN id TO number",
            "ALTER TABLE users RENAME COLUMN id TO number",
        );
        ward.finds(&[("column-gone", "error")])
            .says("encx.toml")
            .says("users.ssn")
            .checked_all();
        ward.sql("DROP TABLE users", "DROP TABLE users");
        ward.finds(&[("column-gone", "error")]).checked_all();
        if ward.is_postgres() {
            ward.sql("CREATE TABLE users (id bigint PRIMARY KEY, ssn json)", "");
            ward.finds(&[("column-type", "error")]).checked_all();
        }
    });
}
