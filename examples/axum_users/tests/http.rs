//! The whole service over HTTP, on both databases.
#![allow(clippy::unwrap_used, reason = "test code: a panic is a failed test")]

mod common;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use common::Running;
use common::databases::Database;
use hyper::{Method, StatusCode};
use serde_json::{Value, json};

const EMAIL: &str = "ada.lovelace@example.org";
const NAME: &str = "Augusta Ada King";
const PHONE: &str = "+44 20 7946 0321";
const PASSWORD: &str = "difference engine no. 2";

/// Runs each of these tests on an empty database of either kind, and removes it afterwards.
macro_rules! on_both {
    ($($test:ident)+) => {
        mod postgres {$(
            #[tokio::test]
            async fn $test() {
                super::run(super::Database::postgres().await, super::$test).await;
            }
        )+}
        mod sqlite {$(
            #[tokio::test]
            async fn $test() {
                super::run(super::Database::sqlite(), super::$test).await;
            }
        )+}
    };
}

on_both! {
    a_copied_value_opens_nowhere_else
    a_deleted_tenant_is_gone_for_good
    a_dump_holds_no_plaintext
    a_user_is_found_by_email_in_its_tenant_alone
    after_a_rotation_and_a_restart_everything_opens
    log_in_takes_the_right_password_alone
    tenants_are_made_by_operators_alone
    users_are_listed_page_by_page
    what_is_wrong_is_told_without_details
}

async fn run(database: Database, test: impl AsyncFnOnce(&Database)) {
    // Catches a panic in the test, which would leave the database behind.
    let outcome = catch(test(&database)).await;
    database.remove().await;
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

async fn catch(test: impl Future<Output = ()>) -> std::thread::Result<()> {
    let mut test = std::pin::pin!(test);
    std::future::poll_fn(move |context| {
        let poll = std::panic::AssertUnwindSafe(|| test.as_mut().poll(context));
        match std::panic::catch_unwind(poll) {
            Ok(poll) => poll.map(Ok),
            Err(panic) => std::task::Poll::Ready(Err(panic)),
        }
    })
    .await
}

async fn start(database: &Database) -> Running {
    Running::start(&database.url(), database.folder()).await
}

async fn create_tenant(service: &Running, tenant: &str) {
    let (status, _) = service
        .call(Method::PUT, &format!("/tenants/{tenant}"), None)
        .await;
    assert_eq!(status, StatusCode::CREATED);
}

async fn create_user(service: &Running, tenant: &str, email: &str) -> String {
    let user = json!({ "email": email, "name": NAME, "phone": PHONE, "password": PASSWORD });
    let (status, user) = service.post(&format!("/tenants/{tenant}/users"), user).await;
    assert_eq!(status, StatusCode::CREATED, "{user}");
    user["id"].as_str().unwrap().to_owned()
}

async fn search(service: &Running, tenant: &str, email: &str) -> Vec<String> {
    let path = format!("/tenants/{tenant}/users/search");
    let (status, found) = service.post(&path, json!({ "email": email })).await;
    assert_eq!(status, StatusCode::OK, "{found}");
    ids(&found)
}

async fn log_in(service: &Running, email: &str, password: &str) -> (StatusCode, Value) {
    let log_in = json!({ "email": email, "password": password });
    service.post("/login", log_in).await
}

fn ids(users: &Value) -> Vec<String> {
    let users = users.as_array().unwrap().iter();
    users
        .map(|user| user["id"].as_str().unwrap().to_owned())
        .collect()
}

async fn a_user_is_found_by_email_in_its_tenant_alone(database: &Database) {
    let service = start(database).await;
    create_tenant(&service, "acme").await;
    create_tenant(&service, "umbrella").await;
    let ada = create_user(&service, "acme", EMAIL).await;
    create_user(&service, "acme", "charles@example.org").await;
    let other = create_user(&service, "umbrella", EMAIL).await;

    let (status, read) = service.get(&format!("/tenants/acme/users/{ada}")).await;
    let expected = json!({ "id": ada, "tenant": "acme", "email": EMAIL, "name": NAME, "phone": PHONE });
    assert_eq!((status, read), (StatusCode::OK, expected));
    let (status, _) = service.get(&format!("/tenants/umbrella/users/{ada}")).await;
    assert_eq!(status, StatusCode::NOT_FOUND);

    assert_eq!(search(&service, "acme", EMAIL).await, [ada]);
    assert_eq!(
        search(&service, "umbrella", " Ada.Lovelace@EXAMPLE.org").await,
        [other]
    );
    assert!(search(&service, "acme", "unknown@example.org").await.is_empty());
    service.end().await;
}

async fn users_are_listed_page_by_page(database: &Database) {
    let service = start(database).await;
    create_tenant(&service, "acme").await;
    let mut created = Vec::new();
    for n in 0..3 {
        created.push(create_user(&service, "acme", &format!("user-{n}@example.org")).await);
    }
    created.sort();
    let (_, all) = service.get("/tenants/acme/users").await;
    assert_eq!(ids(&all), created);
    let (_, first) = service.get("/tenants/acme/users?limit=2").await;
    assert_eq!(ids(&first), created[..2]);
    let (_, rest) = service
        .get(&format!("/tenants/acme/users?limit=2&after={}", created[1]))
        .await;
    assert_eq!(ids(&rest), created[2..]);
    let (_, none) = service.get("/tenants/unknown/users").await;
    assert_eq!(none, json!([]));
    service.end().await;
}

async fn log_in_takes_the_right_password_alone(database: &Database) {
    let service = start(database).await;
    create_tenant(&service, "acme").await;
    create_tenant(&service, "umbrella").await;
    let ada = create_user(&service, "acme", EMAIL).await;
    // The same email in another tenant, with another password.
    let user = json!({ "email": EMAIL, "name": NAME, "password": "analytical engine" });
    let (_, other) = service.post("/tenants/umbrella/users", user).await;

    let (status, user) = log_in(&service, EMAIL, PASSWORD).await;
    assert_eq!((status, user["id"].as_str()), (StatusCode::OK, Some(&*ada)));
    let (_, user) = log_in(&service, "ADA.lovelace@example.org", "analytical engine").await;
    assert_eq!(user["id"], other["id"]);
    assert_eq!(user["tenant"], "umbrella");
    let wrong = log_in(&service, EMAIL, "difference engine no. 3").await;
    let unknown = log_in(&service, "unknown@example.org", PASSWORD).await;
    assert_eq!(wrong.0, StatusCode::UNAUTHORIZED);
    assert_eq!(wrong, unknown, "the answer does not tell which users exist");

    // The hash of a known password does not verify in another row.
    let paste = "UPDATE users SET password = (SELECT password FROM users WHERE tenant_id = 'umbrella')";
    database.execute(paste).await;
    let (status, user) = log_in(&service, EMAIL, "analytical engine").await;
    assert_eq!((status, &user["tenant"]), (StatusCode::OK, &json!("umbrella")));
    assert_eq!(
        log_in(&service, EMAIL, PASSWORD).await.0,
        StatusCode::UNAUTHORIZED
    );
    service.end().await;
}

async fn after_a_rotation_and_a_restart_everything_opens(database: &Database) {
    let service = start(database).await;
    create_tenant(&service, "acme").await;
    let before = create_user(&service, "acme", EMAIL).await;
    let (status, rotated) = service.post("/tenants/acme/rotate", Value::Null).await;
    assert_eq!((status, rotated), (StatusCode::OK, json!({ "version": 2 })));
    let after = create_user(&service, "acme", "charles@example.org").await;
    service.end().await;

    let service = start(database).await;
    for id in [before, after] {
        let (status, user) = service.get(&format!("/tenants/acme/users/{id}")).await;
        assert_eq!((status, user["name"].as_str()), (StatusCode::OK, Some(NAME)));
    }
    assert_eq!(log_in(&service, EMAIL, PASSWORD).await.0, StatusCode::OK);
    service.end().await;
}

async fn a_deleted_tenant_is_gone_for_good(database: &Database) {
    let service = start(database).await;
    create_tenant(&service, "acme").await;
    create_tenant(&service, "umbrella").await;
    let ada = create_user(&service, "acme", EMAIL).await;
    let stays = create_user(&service, "umbrella", EMAIL).await;
    // The content of a backup.
    database
        .execute("CREATE TABLE backup AS SELECT * FROM users")
        .await;

    let (status, deleted) = service.call(Method::DELETE, "/tenants/acme", None).await;
    assert_eq!((status, deleted), (StatusCode::OK, json!({ "everywhere": true })));
    let (status, _) = service.get(&format!("/tenants/acme/users/{ada}")).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(search(&service, "acme", EMAIL).await.is_empty());
    let user = json!({ "email": EMAIL, "name": NAME, "password": PASSWORD });
    let (status, error) = service.post("/tenants/acme/users", user).await;
    assert_eq!(
        (status, error),
        (StatusCode::GONE, json!({ "error": "this tenant was deleted" }))
    );

    // The rows are restored, but cannot be decrypted.
    database.execute("INSERT INTO tenants (id) VALUES ('acme')").await;
    database
        .execute("INSERT INTO users SELECT * FROM backup WHERE tenant_id = 'acme'")
        .await;
    let (status, error) = service.get(&format!("/tenants/acme/users/{ada}")).await;
    assert_eq!(status, StatusCode::GONE, "{error}");
    let (status, _) = service.get(&format!("/tenants/umbrella/users/{stays}")).await;
    assert_eq!(status, StatusCode::OK);
    // Deleting a tenant twice succeeds.
    let (status, deleted) = service.call(Method::DELETE, "/tenants/acme", None).await;
    assert_eq!((status, deleted), (StatusCode::OK, json!({ "everywhere": true })));
    service.end().await;
}

async fn a_copied_value_opens_nowhere_else(database: &Database) {
    let service = start(database).await;
    create_tenant(&service, "acme").await;
    let ada = create_user(&service, "acme", EMAIL).await;
    let charles = create_user(&service, "acme", "charles@example.org").await;
    database
        .execute("UPDATE users SET phone = (SELECT name FROM users LIMIT 1)")
        .await;
    for id in [ada, charles] {
        let (status, error) = service.get(&format!("/tenants/acme/users/{id}")).await;
        assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(error, json!({ "error": "internal error" }), "no details");
    }
    service.end().await;
}

async fn tenants_are_made_by_operators_alone(database: &Database) {
    let service = start(database).await;
    let user = json!({ "email": EMAIL, "name": NAME, "password": PASSWORD });
    let (status, error) = service.post("/tenants/unknown/users", user).await;
    assert_eq!(
        (status, error),
        (
            StatusCode::NOT_FOUND,
            json!({ "error": "there is no such tenant" })
        )
    );
    create_tenant(&service, "acme").await;
    let (status, _) = service.call(Method::PUT, "/tenants/acme", None).await;
    assert_eq!(status, StatusCode::CONFLICT);
    service.end().await;
}

async fn what_is_wrong_is_told_without_details(database: &Database) {
    let service = start(database).await;
    create_tenant(&service, "acme").await;
    let short = json!({ "email": EMAIL, "name": NAME, "password": "short" });
    let (status, error) = service.post("/tenants/acme/users", short).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(error, json!({ "error": "a password has at least 12 characters" }));
    let no_email = json!({ "email": "  ", "name": NAME, "password": PASSWORD });
    let (status, _) = service.post("/tenants/acme/users", no_email).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    service.end().await;
}

async fn a_dump_holds_no_plaintext(database: &Database) {
    let secrets = [EMAIL, "lovelace", NAME, PHONE, PASSWORD];
    let service = start(database).await;
    create_tenant(&service, "acme").await;
    // Everything that the service does, and its traces: in SQLite also in the write-ahead log and in freed pages.
    create_user(&service, "acme", EMAIL).await;
    assert_eq!(log_in(&service, EMAIL, PASSWORD).await.0, StatusCode::OK);
    assert_eq!(search(&service, "acme", EMAIL).await.len(), 1);
    service.get("/tenants/acme/users").await;
    service.post("/tenants/acme/rotate", Value::Null).await;
    create_user(&service, "acme", "charles@example.org").await;
    create_tenant(&service, "umbrella").await;
    for n in 0..5 {
        create_user(&service, "umbrella", &format!("{n}.{EMAIL}")).await;
    }
    let dump = database.dump();
    assert_eq!(find(&dump, &secrets), Vec::<String>::new());
    // The dump is of this database, and contains rows.
    assert_eq!(find(&dump, &["acme"]), ["acme in plain"]);
    service.call(Method::DELETE, "/tenants/umbrella", None).await;
    assert_eq!(find(&database.dump(), &secrets), Vec::<String>::new());
    service.end().await;
    assert_eq!(find(&database.dump(), &secrets), Vec::<String>::new());

    // The search finds what is there, in every encoding.
    let hex: String = EMAIL.bytes().map(|byte| format!("{byte:02x}")).collect();
    let utf16: String = EMAIL.encode_utf16().map(|unit| format!("{unit:04x}")).collect();
    let bytes = match database {
        Database::Postgres { .. } => ["'\\x", "bytea"],
        Database::Sqlite { .. } => ["x'", "blob"],
    };
    let [before, kind] = bytes;
    database
        .execute(&format!(
            "CREATE TABLE leaks (plain text, bytes {kind}, wide {kind}, encoded text)"
        ))
        .await;
    let encoded = STANDARD_NO_PAD.encode(format!("x{EMAIL}"));
    database
        .execute(&format!(
            "INSERT INTO leaks VALUES ('{NAME}', {before}{hex}', {before}{utf16}', '{encoded}')"
        ))
        .await;
    let assert_found = || {
        let found = find(&database.dump(), &secrets);
        let forms = |secret: &str| found.iter().filter(|found| found.starts_with(secret)).count();
        assert!(forms(NAME) >= 1 && forms(EMAIL) >= 3, "{found:?}");
    };
    assert_found();
    if let Database::Sqlite { .. } = database {
        // The deleted value is still in a free page.
        database.execute("DROP TABLE leaks").await;
        assert_found();
    }
}

/// Searches a dump for secrets: raw, in UTF-16, and each of these as hex and as base64, in upper and lower case.
fn find(dump: &[u8], secrets: &[&str]) -> Vec<String> {
    let lower = dump.to_ascii_lowercase();
    let mut found = Vec::new();
    for secret in secrets {
        let wide: [Vec<u8>; 2] =
            [u16::to_le_bytes, u16::to_be_bytes].map(|bytes| secret.encode_utf16().flat_map(bytes).collect());
        let [little, big] = wide;
        for (form, bytes) in [
            ("plain", secret.as_bytes().to_vec()),
            ("UTF-16LE", little),
            ("UTF-16BE", big),
        ] {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            if contains(&lower, &bytes.to_ascii_lowercase()) {
                found.push(format!("{secret} in {form}"));
            }
            if contains(&lower, hex.as_bytes()) {
                found.push(format!("{secret} in hex of {form}"));
            }
            // Base64 has a different form at each of three offsets, and shares its first and last characters with its
            // neighbours.
            for offset in 0..3 {
                let padded = [vec![0; offset], bytes.clone()].concat();
                let encoded = STANDARD_NO_PAD.encode(padded);
                let inner = &encoded.as_bytes()[if offset == 0 { 0 } else { 4 }..encoded.len() / 4 * 4];
                let inner = &inner[..inner.len().saturating_sub(1)];
                if inner.len() >= 6 && contains(dump, inner) {
                    found.push(format!("{secret} in base64 of {form}"));
                }
            }
        }
    }
    found
}

fn contains(dump: &[u8], secret: &[u8]) -> bool {
    dump.windows(secret.len()).any(|window| window == secret)
}
