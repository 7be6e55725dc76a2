//! Where the derive binds each field: the format depends on names, and a refactoring cannot change them unnoticed.

use encx::record::{EncryptedColumn, RowIdKind};
use encx::{EncryptionContext, Field};
use encx_testkit::Harness;

use crate::{User, user};

/// A service pins the manifest. Any change to it makes rows unreadable.
#[test]
fn the_manifest_is_pinned() {
    assert_eq!(
        User::encx_manifest(),
        r#"table users
id id: uuid
context tenantId = column tenant_id
context purpose = "pii"
field email: text, in users.email
field ssn: text, in users.social_security
field address/street: text, in users.street
field address/house_number: integer, in users.house_number
field address/place/latitude: float, in users.latitude
field billing/street: text, in users.billing_street
field billing/house_number: integer, in users.billing_house_number
field billing/place/latitude: float, in users.billing_latitude
field prefs: json, in users.prefs
field type: json, in users.type
"#
    );
}

/// Decrypted by hand, to check that the manifest matches the bytes.
#[tokio::test]
async fn every_field_lies_where_the_manifest_says() {
    let crypto = Harness::new().await.process().await;
    let mut user = user(1, "t-1");
    user.billing = Some(crate::address("Side Street"));
    let row = user.encrypt(&crypto).await.unwrap();
    let context = EncryptionContext::from_pairs([("tenantId", "t-1"), ("purpose", "pii")]).unwrap();
    let column = |column| Field::new("users", column);
    let id = user.id;
    let billing = row.billing.as_ref().unwrap();
    let seven = 7_i128.to_be_bytes();
    let half = 52.5_f64.to_be_bytes();
    let expected: &[(_, _, &[u8])] = &[
        (&row.email, column("email").row(id), b"1@example.com"),
        (
            row.social.as_ref().unwrap(),
            column("ssn").row(id),
            b"123-45-6789",
        ),
        (
            &row.address.street,
            column("address").row_path(id, ["street"]),
            b"Main Street",
        ),
        (
            billing.house.as_ref().unwrap(),
            column("billing").row_path(id, ["house_number"]),
            &seven,
        ),
        (
            &billing.place.as_ref().unwrap().latitude,
            column("billing").row_path(id, ["place", "latitude"]),
            &half,
        ),
        (
            &row.prefs,
            column("prefs").row(id),
            br#"{"theme":"dark","sizes":[1,2]}"#,
        ),
        (row.r#type.as_ref().unwrap(), column("type").row(id), b"[3]"),
    ];
    for (at, (ciphertext, aad, plaintext)) in expected.iter().enumerate() {
        let opened = crypto.decrypt(&context, ciphertext, aad).await;
        assert_eq!(opened.unwrap().as_bytes(), *plaintext, "{at}");
    }
}

#[test]
fn columns_are_described_for_jobs() {
    let describe = |column: &str, sql: &str| {
        EncryptedColumn::new("users", column)
            .stored_in("users", sql)
            .row_id("id", RowIdKind::Uuid)
            .context_column("tenantId", "tenant_id")
            .context_value("purpose", "pii")
    };
    let columns = User::encx_columns();
    assert_eq!(columns.len(), 10);
    assert!(columns.contains(&describe("email", "email")));
    assert!(columns.contains(&describe("ssn", "social_security")));
    let latitude = describe("billing", "billing_latitude")
        .step("place")
        .step("latitude");
    assert!(columns.contains(&latitude));
}
