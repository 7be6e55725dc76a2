//! The code of `docs/derive.md`: compiled, run, and compared with the document.

use encx::password::PasswordParams;
use encx::{Crypto, EncryptionContext};
use encx_testkit::{MemoryKeyStore, MemoryKms, block_on};
use sqlx::postgres::PgPool;
use sqlx::sqlite::SqlitePool;

use crate::common;

pub(crate) type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// As in the guide.
fn pii(tenant: &str) -> Result<EncryptionContext> {
    let context = EncryptionContext::builder()
        .pair("tenantId", tenant)
        .pair("purpose", "pii");
    Ok(context.build()?)
}

mod a_struct {
    use encx::record::RecordError;
    use encx::{Crypto, EncryptionContext};
    use sqlx::postgres::PgPool;
    use sqlx::{FromRow, Row};

    use super::Result;

    use encx::Encrypt;
    use uuid::Uuid;

    #[derive(Encrypt)]
    #[encx(table = "users", context("tenantId" = tenant_id, "purpose" = "pii"))]
    #[encx(encrypted(derive(Clone, sqlx::FromRow)))]
    pub(super) struct User {
        #[encx(id)]
        pub(super) id: Uuid,
        pub(super) tenant_id: String,
        #[encx(encrypt)]
        pub(super) email: String,
        #[encx(encrypt)]
        pub(super) phone: Option<String>,
    }

    pub(super) async fn insert(crypto: &Crypto, pool: &PgPool, user: &User) -> Result<()> {
        let row = user.encrypt(crypto).await?;
        let sql = "INSERT INTO users (id, tenant_id, email, phone) VALUES ($1, $2, $3, $4)";
        let insert = sqlx::query(sql).bind(row.id).bind(row.tenant_id);
        insert.bind(row.email).bind(row.phone).execute(pool).await?;
        Ok(())
    }

    pub(super) async fn user(crypto: &Crypto, pool: &PgPool, tenant_id: &str, id: Uuid) -> Result<User> {
        let sql = "SELECT * FROM users WHERE id = $1 AND tenant_id = $2";
        let query = sqlx::query_as(sql).bind(id).bind(tenant_id);
        let row: EncryptedUser = query.fetch_one(pool).await?;
        Ok(row.decrypt(crypto).await?)
    }

    pub(super) async fn user_of(
        crypto: &Crypto,
        tenant_id: &str,
        row: EncryptedUser,
    ) -> Result<std::result::Result<User, RecordError>> {
        let context = EncryptionContext::builder()
            .pair("tenantId", tenant_id)
            .pair("purpose", "pii")
            .build()?;
        let user = row.decrypt_in(crypto, &context).await;
        Ok(user)
    }

    pub(super) async fn insert_all(crypto: &Crypto, pool: &PgPool, users: &[User]) -> Result<()> {
        let rows = encx::record::encrypt_all(crypto, users).await?;
        let ids: Vec<_> = rows.iter().map(|row| row.id).collect();
        let tenants: Vec<_> = rows.iter().map(|row| row.tenant_id.as_str()).collect();
        let emails: Vec<_> = rows.iter().map(|row| &row.email).collect();
        let phones: Vec<_> = rows.iter().map(|row| row.phone.as_ref()).collect();
        let sql = "INSERT INTO users (id, tenant_id, email, phone) \
                   SELECT * FROM unnest($1::uuid[], $2::text[], $3::bytea[], $4::bytea[])";
        let insert = sqlx::query(sql).bind(ids).bind(tenants);
        insert.bind(emails).bind(phones).execute(pool).await?;
        Ok(())
    }

    pub(super) async fn page(
        crypto: &Crypto,
        pool: &PgPool,
        context: &EncryptionContext,
        tenant_id: &str,
    ) -> Result<Vec<User>> {
        let sql = "SELECT * FROM users WHERE tenant_id = $1 ORDER BY id LIMIT 50";
        let rows: Vec<EncryptedUser> = sqlx::query_as(sql).bind(tenant_id).fetch_all(pool).await?;
        let users: Vec<User> = encx::record::decrypt_all_in(crypto, context, rows).await?;
        Ok(users)
    }

    pub(super) async fn damaged_page(
        crypto: &Crypto,
        pool: &PgPool,
        context: &EncryptionContext,
        tenant_id: &str,
    ) -> Result<(Vec<User>, Vec<(Uuid, String)>)> {
        let sql = "SELECT * FROM users WHERE tenant_id = $1 ORDER BY id LIMIT 50";
        let raw = sqlx::query(sql).bind(tenant_id).fetch_all(pool).await?;
        let (mut rows, mut unreadable) = (Vec::new(), Vec::new());
        for raw in raw {
            match EncryptedUser::from_row(&raw) {
                Ok(row) => rows.push(row),
                Err(error) => unreadable.push((raw.try_get("id")?, error.to_string())),
            }
        }
        let mut users = Vec::new();
        for (row, user) in encx::record::decrypt_each_in(crypto, context, rows).await {
            match user {
                Ok(user) => users.push(user),
                Err(error) => unreadable.push((row.id, error.to_string())),
            }
        }
        Ok((users, unreadable))
    }

    /// The part of the service that the document calls.
    pub(super) struct Service {
        pub(super) shown: Vec<String>,
        pub(super) failed: Vec<String>,
        pub(super) later: usize,
    }

    impl Service {
        pub(super) async fn answer(&mut self, crypto: &Crypto, row: EncryptedUser) {
            let mut show = |user: User| self.shown.push(user.email);
            let mut try_again_later = || self.later += 1;
            let mut log = |field: &str, error: &encx::Error| self.failed.push(format!("{field}: {error}"));
            match row.decrypt(crypto).await {
                Ok(user) => show(user),
                Err(error) if error.is_retryable() => try_again_later(),
                Err(error) => {
                    for failure in error.failures() {
                        log(&failure.field, &failure.error);
                    }
                }
            }
        }
    }

    #[test]
    fn users_are_kept_as_before() {
        assert_eq!(
            User::encx_manifest(),
            "\
table users
id id: uuid
context tenantId = column tenant_id
context purpose = \"pii\"
field email: text, in users.email
field phone: text, in users.phone
"
        );
    }
}

mod assigned {
    use encx::{Crypto, Encrypt};
    use sqlx::postgres::PgPool;
    use sqlx::sqlite::SqlitePool;

    use super::Result;

    #[derive(Encrypt)]
    #[encx(table = "orders", context("tenantId" = tenant_id))]
    #[encx(encrypted(derive(sqlx::FromRow)))]
    pub(super) struct Order {
        #[encx(id)]
        pub(super) id: i64,
        pub(super) tenant_id: String,
        #[encx(encrypt)]
        pub(super) note: String,
    }

    pub(super) async fn in_postgres(crypto: &Crypto, pool: &PgPool) -> Result<EncryptedOrder> {
        let (tenant_id, note) = ("acme".to_owned(), "leave it at the door".to_owned());
        let next = sqlx::query_scalar("SELECT nextval('orders_id_seq')");
        let id: i64 = next.fetch_one(pool).await?;
        #[rustfmt::skip]
        let row = Order { id, tenant_id, note }.encrypt(crypto).await?;
        Ok(row)
    }

    pub(super) async fn in_sqlite(crypto: &Crypto, pool: &SqlitePool) -> Result<EncryptedOrder> {
        let (tenant_id, note) = ("acme".to_owned(), "leave it at the door".to_owned());
        let next = sqlx::query_scalar("UPDATE ids SET orders = orders + 1 RETURNING orders");
        let id: i64 = next.fetch_one(pool).await?;
        #[rustfmt::skip]
        let row = Order { id, tenant_id, note }.encrypt(crypto).await?;
        Ok(row)
    }
}

mod search {
    use encx::{Crypto, Encrypt, EncryptionContext};
    use sqlx::postgres::PgPool;
    use sqlx::sqlite::SqlitePool;

    use super::Result;

    #[derive(Encrypt, Debug, PartialEq)]
    #[encx(table = "members", context("tenantId" = tenant_id, "purpose" = "pii"))]
    #[encx(encrypted(derive(sqlx::FromRow)))]
    #[encx(index(name = "name_born", fields = [last_name(normalize = "case-fold"), born], bits = 32))]
    pub(super) struct Member {
        #[encx(id)]
        pub(super) id: i64,
        pub(super) tenant_id: String,
        #[encx(encrypt, index(normalize = "email", bits = 64, context("purpose" = "login")))]
        pub(super) email: String,
        #[encx(encrypt)]
        pub(super) last_name: String,
        #[encx(encrypt)]
        pub(super) born: String,
        #[encx(encrypt, index(normalize = "phone", bits = 16))]
        pub(super) phone: Option<String>,
    }

    pub(super) async fn by_email(
        crypto: &Crypto,
        pool: &PgPool,
        tenant_id: &str,
        context: &EncryptionContext,
    ) -> Result<Vec<Member>> {
        let terms = Member::email_terms(crypto, "ada@example.org").await?;
        let sql = "SELECT * FROM members WHERE email_index = ANY($1) AND tenant_id = $2";
        let query = sqlx::query_as(sql).bind(terms.as_slice()).bind(tenant_id);
        let rows: Vec<EncryptedMember> = query.fetch_all(pool).await?;
        let found = Member::matching_email_in(crypto, context, rows, "ada@example.org").await?;
        Ok(found)
    }

    pub(super) async fn in_sqlite(crypto: &Crypto, pool: &SqlitePool) -> Result<Vec<Member>> {
        let terms = Member::email_terms(crypto, "ada@example.org").await?;
        let mut query = sqlx::QueryBuilder::new("SELECT * FROM members WHERE email_index");
        terms.push_in(&mut query);
        let rows: Vec<EncryptedMember> = query.build_query_as().fetch_all(pool).await?;
        Ok(Member::matching_email(crypto, rows, "ada@example.org").await?)
    }

    pub(super) async fn by_phone(crypto: &Crypto, pool: &PgPool, tenant_id: &str) -> Result<Vec<Member>> {
        let terms = Member::phone_terms(crypto, tenant_id, "0151 12345").await?;
        let sql = "SELECT * FROM members WHERE phone_index = ANY($1) AND tenant_id = $2";
        let query = sqlx::query_as(sql).bind(terms.as_slice()).bind(tenant_id);
        let rows: Vec<EncryptedMember> = query.fetch_all(pool).await?;
        let found = Member::matching_phone(crypto, tenant_id, rows, "0151 12345").await?;
        Ok(found)
    }

    pub(super) async fn by_name(crypto: &Crypto, pool: &PgPool, tenant_id: &str) -> Result<Vec<Member>> {
        let sought = ("lovelace", "1815-12-10");
        let terms = Member::name_born_terms(crypto, tenant_id, sought).await?;
        let sql = "SELECT * FROM members WHERE name_born_index = ANY($1) AND tenant_id = $2";
        let query = sqlx::query_as(sql).bind(terms.as_slice()).bind(tenant_id);
        let rows: Vec<EncryptedMember> = query.fetch_all(pool).await?;
        let found = Member::matching_name_born(crypto, tenant_id, rows, sought).await?;
        Ok(found)
    }
}

mod passwords {
    use encx::password::PasswordVerdict;
    use encx::record::Password;
    use encx::{Crypto, Encrypt, EncryptionContext};
    use sqlx::postgres::PgPool;

    use super::Result;

    #[derive(Encrypt)]
    #[encx(table = "accounts", context("tenantId" = tenant_id, "purpose" = "pii"))]
    #[encx(encrypted(derive(sqlx::FromRow)))]
    pub(super) struct Account {
        #[encx(id)]
        id: i64,
        tenant_id: String,
        #[encx(password)]
        password: Password,
    }

    pub(super) async fn sign_up(
        crypto: &Crypto,
        pool: &PgPool,
        id: i64,
        tenant_id: &str,
        typed: &str,
    ) -> Result<()> {
        let account = Account {
            id,
            tenant_id: tenant_id.to_owned(),
            password: Password::new(typed),
        };
        let row = account.encrypt(crypto).await?; // hashes it
        let sql = "INSERT INTO accounts (id, tenant_id, password) VALUES ($1, $2, $3)";
        let insert = sqlx::query(sql).bind(row.id).bind(row.tenant_id);
        insert.bind(row.password).execute(pool).await?;
        Ok(())
    }

    pub(super) async fn log_in(
        crypto: &Crypto,
        pool: &PgPool,
        context: &EncryptionContext,
        (tenant_id, id): (&str, i64),
        typed: &str,
    ) -> Result<bool> {
        let sql = "SELECT * FROM accounts WHERE id = $1 AND tenant_id = $2";
        let query = sqlx::query_as(sql).bind(id).bind(tenant_id);
        let row: Option<EncryptedAccount> = query.fetch_optional(pool).await?;
        let Some(row) = row else {
            // Takes as long as for a user who exists.
            return Ok(crypto.verify_nobody(context, typed).await?.is_match());
        };
        let verdict = row.verify_password(crypto, tenant_id, typed).await?; // nothing is decrypted
        if let PasswordVerdict::Match { needs_rehash: true } = verdict {
            let hash = row.hash_password(crypto, tenant_id, typed).await?;
            let sql = "UPDATE accounts SET password = $1 WHERE id = $2";
            sqlx::query(sql).bind(hash).bind(row.id).execute(pool).await?;
        }
        Ok(verdict.is_match())
    }
}

mod kinds {
    use encx::Crypto;
    use encx::record::RecordError;

    use encx::Encrypt;
    use encx::record::{CodecError, Encoded, FieldCodec};
    use serde::{Deserialize, Serialize};

    #[derive(Encrypt, Clone, Debug, PartialEq)]
    #[encx(fragment, encrypted(derive(sqlx::FromRow)))]
    pub(super) struct Address {
        #[encx(encrypt)]
        pub(super) street: String,
        pub(super) country: String,
    }

    #[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
    pub(super) struct Settings {
        pub(super) theme: String,
    }

    #[derive(Encrypt, Debug, PartialEq)]
    #[encx(table = "customers", context("purpose" = "pii"))]
    #[encx(encrypted(derive(sqlx::FromRow)))]
    pub(super) struct Customer {
        #[encx(id)]
        pub(super) id: i64,
        #[encx(encrypt)]
        pub(super) phone: Option<String>, // `None` is NULL
        #[encx(nested)]
        pub(super) address: Address, // columns `street` and `country`
        #[encx(json)]
        pub(super) settings: Settings, // any `Serialize + DeserializeOwned`; feature `json`
        #[encx(json)]
        pub(super) former: Vec<Settings>, // as many as you like, in one column
        #[encx(encrypt)]
        pub(super) account: Iban, // a type of your own
    }

    #[derive(Clone, Debug, PartialEq)]
    pub(super) struct Iban(pub(super) String);

    impl FieldCodec for Iban {
        const FORMAT: &'static str = String::FORMAT;

        fn encode(&self) -> Result<Encoded<'_>, CodecError> {
            self.0.encode()
        }

        fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
            String::decode(bytes).map(Self)
        }
    }

    #[test]
    fn settings_are_read_as_before() {
        let kept = r#"{"theme":"dark"}"#;
        let settings: Settings = serde_json::from_str(kept).unwrap();
        assert_eq!(serde_json::to_string(&settings).unwrap(), kept);
    }

    pub(super) async fn there_and_back(
        crypto: &Crypto,
        customer: &Customer,
    ) -> Result<Customer, RecordError> {
        customer.encrypt(crypto).await?.decrypt(crypto).await
    }
}

pub(crate) async fn crypto() -> Crypto {
    let quick = PasswordParams::insecure_new(64, 1, 1).unwrap();
    let builder = Crypto::builder(MemoryKms::new(), MemoryKeyStore::new()).password_params(quick);
    builder.build().await.unwrap()
}

const TABLES: [&str; 7] = [
    "CREATE TABLE users (id uuid PRIMARY KEY, tenant_id text NOT NULL, email bytea NOT NULL, phone bytea)",
    "CREATE TABLE orders (id bigserial PRIMARY KEY, tenant_id text NOT NULL, note bytea NOT NULL)",
    "CREATE TABLE members (id bigint PRIMARY KEY, tenant_id text NOT NULL, email bytea NOT NULL, \
     email_index bytea NOT NULL, last_name bytea NOT NULL, born bytea NOT NULL, name_born_index bytea NOT NULL, \
     phone bytea, phone_index bytea)",
    "CREATE TABLE accounts (id bigint PRIMARY KEY, tenant_id text NOT NULL, password text NOT NULL)",
    "CREATE INDEX ON members (email_index)",
    "CREATE INDEX ON members (phone_index)",
    "CREATE INDEX ON members (name_born_index)",
];

fn ada(id: i64) -> search::Member {
    search::Member {
        id,
        tenant_id: "acme".to_owned(),
        email: "Ada@Example.org".to_owned(),
        last_name: "Lovelace".to_owned(),
        born: "1815-12-10".to_owned(),
        phone: Some("0151-12345".to_owned()),
    }
}

macro_rules! insert_member {
    ($pool:expr, $row:expr) => {{
        let row = $row;
        let sql = "INSERT INTO members VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
        let insert = sqlx::query(sql).bind(row.id).bind(row.tenant_id).bind(row.email);
        let insert = insert.bind(row.email_index).bind(row.last_name).bind(row.born);
        let insert = insert
            .bind(row.name_born_index)
            .bind(row.phone)
            .bind(row.phone_index);
        insert.execute($pool).await?;
    }};
}

async fn on_postgres(pool: &PgPool) -> Result<()> {
    for table in TABLES {
        sqlx::query(table).execute(pool).await?;
    }
    let crypto = &crypto().await;
    let [acme, umbrella] = [pii("acme")?, pii("umbrella")?];

    let user = |n: u8, phone: Option<&str>| a_struct::User {
        id: uuid::Uuid::from_bytes([n; 16]),
        tenant_id: "acme".to_owned(),
        email: format!("{n}@example.org"),
        phone: phone.map(str::to_owned),
    };
    a_struct::insert(crypto, pool, &user(1, None)).await?;
    let read = a_struct::user(crypto, pool, "acme", user(1, None).id).await?;
    assert_eq!((read.email.as_str(), read.phone), ("1@example.org", None));
    let of = |user: a_struct::User| async move { user.encrypt(crypto).await.unwrap() };
    assert!(
        a_struct::user_of(crypto, "acme", of(user(1, None)).await)
            .await?
            .is_ok()
    );
    assert!(
        a_struct::user_of(crypto, "umbrella", of(user(1, None)).await)
            .await?
            .is_err()
    );
    a_struct::insert_all(crypto, pool, &[user(2, Some("1")), user(3, None)]).await?;
    let page = a_struct::page(crypto, pool, &acme, "acme").await?;
    let phones: Vec<_> = page.iter().map(|user| user.phone.as_deref()).collect();
    assert_eq!(phones, [None, Some("1"), None]);
    // A value of another row, and one that is not a ciphertext.
    let damage = "UPDATE users SET email = (SELECT email FROM users WHERE id = $1) WHERE id = $2";
    let damage = sqlx::query(damage).bind(user(1, None).id).bind(user(2, None).id);
    damage.execute(pool).await?;
    let damage = sqlx::query("UPDATE users SET phone = '7' WHERE id = $1");
    damage.bind(user(3, None).id).execute(pool).await?;
    let (users, unreadable) = a_struct::damaged_page(crypto, pool, &acme, "acme").await?;
    assert_eq!(users.len(), 1);
    let [(third, not_encrypted), (second, moved)] = &unreadable[..] else {
        panic!("{unreadable:?}");
    };
    assert_eq!([*second, *third], [user(2, None).id, user(3, None).id]);
    assert!(
        not_encrypted.contains("phone") && not_encrypted.contains("not a ciphertext"),
        "{not_encrypted}"
    );
    let place = format!("users.email, row {second} does not authenticate");
    assert!(moved.contains(&place), "{moved}");
    let (mut moved, other) = (of(user(4, None)).await, of(user(5, None)).await);
    moved.email = other.email.clone();
    let mut service = a_struct::Service {
        shown: Vec::new(),
        failed: Vec::new(),
        later: 0,
    };
    service.answer(crypto, moved).await;
    service.answer(crypto, other).await;
    assert_eq!(
        (service.shown.as_slice(), service.later),
        (&["5@example.org".to_owned()][..], 0)
    );
    assert!(service.failed.len() == 1 && service.failed[0].starts_with("email: "));

    let ids = [
        assigned::in_postgres(crypto, pool).await?.id,
        assigned::in_postgres(crypto, pool).await?.id,
    ];
    assert_eq!(ids, [1, 2]);

    insert_member!(pool, ada(1).encrypt(crypto).await?);
    assert_eq!(search::by_email(crypto, pool, "acme", &acme).await?, [ada(1)]);
    assert!(
        search::by_email(crypto, pool, "umbrella", &umbrella)
            .await?
            .is_empty()
    );
    assert_eq!(search::by_phone(crypto, pool, "acme").await?, [ada(1)]);
    assert_eq!(search::by_name(crypto, pool, "acme").await?, [ada(1)]);

    passwords::sign_up(crypto, pool, 1, "acme", "correct horse").await?;
    for (typed, id, is_let_in) in [
        ("correct horse", 1, true),
        ("correct cow", 1, false),
        ("correct horse", 2, false),
    ] {
        let verdict = passwords::log_in(crypto, pool, &acme, ("acme", id), typed).await?;
        assert_eq!(verdict, is_let_in, "{typed}, {id}");
    }

    let customer = kinds::Customer {
        id: 1,
        phone: None,
        address: kinds::Address {
            street: "Main Street".to_owned(),
            country: "GB".to_owned(),
        },
        settings: kinds::Settings {
            theme: "dark".to_owned(),
        },
        former: Vec::new(),
        account: kinds::Iban("GB33".to_owned()),
    };
    assert_eq!(kinds::there_and_back(crypto, &customer).await?, customer);
    Ok(())
}

#[test]
fn postgres_does_what_the_document_says() {
    common::postgres::on_a_database(|database| async move {
        on_postgres(&database.pool().await).await.unwrap();
    });
}

async fn on_sqlite() -> Result<()> {
    let pool = SqlitePool::connect("sqlite::memory:").await?;
    let members = TABLES[2].replace("bytea", "blob");
    for table in [
        &members,
        "CREATE TABLE ids (orders integer NOT NULL)",
        "INSERT INTO ids VALUES (0)",
    ] {
        sqlx::query(sqlx::AssertSqlSafe(table)).execute(&pool).await?;
    }
    let crypto = &crypto().await;
    let ids = [
        assigned::in_sqlite(crypto, &pool).await?.id,
        assigned::in_sqlite(crypto, &pool).await?.id,
    ];
    assert_eq!(ids, [1, 2]);
    insert_member!(&pool, ada(1).encrypt(crypto).await?);
    assert_eq!(search::in_sqlite(crypto, &pool).await?, [ada(1)]);
    Ok(())
}

#[test]
fn sqlite_does_what_the_document_says() {
    block_on(on_sqlite()).unwrap();
}

#[test]
fn the_document_shows_this() {
    let document = include_str!("../../../docs/derive.md");
    let source = [
        include_str!("document.rs"),
        include_str!("tokens/code.rs"),
        include_str!("upsert.rs"),
    ];
    crate::shown::assert_shown(document, &source.concat());
}
