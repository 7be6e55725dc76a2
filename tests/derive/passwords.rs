//! Passwords in records: hashed when new, kept when stored, verified without decryption.

use encx::password::{PasswordParams, PasswordVerdict};
use encx::record::Password;
use encx::{Crypto, Encrypt, Error};
use encx_test_support::HarnessExt;
use encx_testkit::Harness;

#[derive(Encrypt, Debug)]
#[encx(table = "accounts", context("tenantId" = tenant_id, "purpose" = "pii"))]
struct Account {
    #[encx(id)]
    id: i64,
    tenant_id: String,
    #[encx(encrypt)]
    email: String,
    #[encx(password)]
    password: Password,
    #[encx(password(context("purpose" = "recovery")), rename = "pin_hash")]
    pin: Option<Password>,
}

fn account(id: i64) -> Account {
    Account {
        id,
        tenant_id: "t-1".to_owned(),
        email: "a@b".to_owned(),
        password: Password::new("correct horse"),
        pin: None,
    }
}

/// Hashes with the cheapest Argon2 parameters.
async fn process(harness: &Harness) -> Crypto {
    let builder = harness.builder();
    let quick = PasswordParams::insecure_new(64, 1, 1).unwrap();
    builder.password_params(quick).build().await.unwrap()
}

const MATCH: PasswordVerdict = PasswordVerdict::Match { needs_rehash: false };

#[tokio::test]
async fn a_password_is_hashed_and_verified_and_survives_reading_and_writing() {
    let crypto = process(&Harness::new().await).await;
    let row = account(1).encrypt(&crypto).await.unwrap();
    assert_eq!(
        row.verify_password(&crypto, "t-1", "correct horse")
            .await
            .unwrap(),
        MATCH
    );
    assert_eq!(
        row.verify_password(&crypto, "t-1", "battery staple")
            .await
            .unwrap(),
        PasswordVerdict::NoMatch
    );
    let (hash, pin) = (row.password.clone(), row.pin.clone());
    assert!(pin.is_none());

    // Read, changed in another field, and written: the hash stays.
    let mut read = row.decrypt(&crypto).await.unwrap();
    assert_eq!(read.password.hash(), Some(&hash));
    read.email = "b@c".to_owned();
    read.pin = Some(Password::new("1234"));
    let row = read.encrypt(&crypto).await.unwrap();
    assert_eq!(row.password, hash);
    assert_eq!(row.verify_pin(&crypto, "1234").await.unwrap(), MATCH);
    assert!(!format!("{read:?}").contains("1234"));

    // Changed.
    let hash = row.hash_password(&crypto, "t-1", "battery staple").await.unwrap();
    let row = EncryptedAccount {
        password: hash,
        ..row
    };
    assert_eq!(
        row.verify_password(&crypto, "t-1", "battery staple")
            .await
            .unwrap(),
        MATCH
    );
}

#[tokio::test]
async fn a_hash_in_another_row_or_column_does_not_verify() {
    let crypto = process(&Harness::new().await).await;
    let row = account(1).encrypt(&crypto).await.unwrap();
    let moved = EncryptedAccount { id: 2, ..row.clone() };
    assert_eq!(
        moved
            .verify_password(&crypto, "t-1", "correct horse")
            .await
            .unwrap(),
        PasswordVerdict::NoMatch
    );
    let copied = EncryptedAccount {
        pin: Some(row.password.clone()),
        ..row
    };
    let refused = copied.verify_pin(&crypto, "correct horse").await;
    assert!(!refused.is_ok_and(PasswordVerdict::is_match));
}

/// Mallory's password verifies in her own tenant, and does not open Ada's.
#[tokio::test]
async fn a_row_of_another_tenant_is_not_verified() {
    let crypto = process(&Harness::new().await).await;
    let mut mallory = account(2);
    mallory.tenant_id = "t-2".to_owned();
    mallory.pin = Some(Password::new("1234"));
    let row = mallory.encrypt(&crypto).await.unwrap();
    let own = row
        .verify_password(&crypto, "t-2", "correct horse")
        .await
        .unwrap();
    assert_eq!(own, MATCH);
    let other = row.verify_password(&crypto, "t-1", "correct horse").await;
    assert!(matches!(other, Err(Error::OtherContext)), "{other:?}");
    let hashed = row.hash_password(&crypto, "t-1", "battery staple").await;
    assert!(matches!(hashed, Err(Error::OtherContext)), "{hashed:?}");

    // The recovery's context has no tenant.
    assert_eq!(row.verify_pin(&crypto, "1234").await.unwrap(), MATCH);
    let context = |tenant| encx::EncryptionContext::from_pairs([("tenantId", tenant), ("purpose", "pii")]);
    let [first, second] = ["t-1", "t-2"].map(|tenant| context(tenant).unwrap());
    let other = row.verify_pin_in(&crypto, &first, "1234").await;
    assert!(matches!(other, Err(Error::OtherContext)), "{other:?}");
    assert_eq!(row.verify_pin_in(&crypto, &second, "1234").await.unwrap(), MATCH);
}

#[tokio::test]
async fn a_user_without_a_password_is_told_from_an_unknown_one() {
    let crypto = process(&Harness::new().await).await;
    let row = account(1).encrypt(&crypto).await.unwrap();
    assert_eq!(
        row.verify_pin(&crypto, "1234").await.unwrap(),
        PasswordVerdict::NoMatch
    );
}

#[tokio::test]
async fn a_password_that_cannot_be_hashed_fails_by_name() {
    let crypto = process(&Harness::new().await).await;
    let mut empty = account(1);
    empty.password = Password::new("");
    let error = empty.encrypt(&crypto).await.unwrap_err();
    assert_eq!(error.failures()[0].field, "password");
    assert!(matches!(error.failures()[0].error, Error::Password(_)));
}

#[test]
fn passwords_come_from_forms_and_stand_in_the_manifest() {
    let password: Password = serde_json::from_str("\"hunter2\"").unwrap();
    assert!(password.hash().is_none());
    assert_eq!(format!("{password:?}"), "Password([REDACTED])");
    let manifest = Account::encx_manifest();
    let lines: Vec<_> = manifest
        .lines()
        .filter(|line| line.starts_with("password"))
        .collect();
    assert_eq!(
        lines,
        [
            "password password: in accounts.password",
            "password pin_hash: in accounts.pin_hash, context purpose = \"recovery\"",
        ]
    );
}

#[allow(dead_code, reason = "it has to compile, not to run")]
fn futures_are_send(crypto: &Crypto, account: &Account, row: &EncryptedAccount) {
    fn is_send(_: impl Send) {}
    is_send(account.encrypt(crypto));
    is_send(row.verify_password(crypto, "t-1", "a"));
    is_send(row.hash_pin(crypto, "a"));
}

/// A struct with a password can derive the usual traits.
#[derive(Encrypt, Clone, Debug, PartialEq, Eq)]
#[encx(table = "logins", context("purpose" = "login"), encrypted(derive(Clone, Debug, PartialEq, Eq)))]
struct Login {
    #[encx(id)]
    id: i64,
    #[encx(encrypt, index(normalize = "email", bits = 64))]
    email: String,
    #[encx(password)]
    password: Password,
}

#[tokio::test]
async fn a_struct_with_a_password_can_be_cloned_and_compared() {
    let crypto = process(&Harness::new().await).await;
    let login = |typed: &str| Login {
        id: 1,
        email: "a@b".to_owned(),
        password: Password::new(typed),
    };
    let one = login("correct horse");
    assert_eq!(one, one.clone());
    assert_eq!(one, login("correct horse"));
    assert_ne!(one, login("correct horsf"));
    assert_ne!(one, login("correct hors"));
    let row = one.encrypt(&crypto).await.unwrap();
    assert_eq!(row, row.clone());
    let read = row.clone().decrypt(&crypto).await.unwrap();
    assert_eq!(read, read.clone());
    assert_ne!(
        read, one,
        "a stored password equals no new one, even of the same text"
    );
    let other = one.encrypt(&crypto).await.unwrap();
    assert_ne!(other.password, row.password, "another salt");
    for shown in [
        format!("{one:?}"),
        format!("{:?}", one.clone()),
        format!("{read:?}"),
    ] {
        assert!(
            shown.contains("Password([REDACTED])") && !shown.contains("correct"),
            "{shown}"
        );
    }
}
