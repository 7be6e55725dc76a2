//! Every field that failed is named, no value is shown, and there is no partial record.

use encx::kms::KmsErrorKind;
use encx::record::{CodecError, FieldFailure, RecordError};
use encx::{Encrypt, Error};
use encx_testkit::Harness;

use crate::{EncryptedUser, user};

fn names(error: &RecordError) -> Vec<&str> {
    error.failures().iter().map(|failure| &*failure.field).collect()
}

#[tokio::test]
async fn every_field_that_fails_is_named() {
    let crypto = Harness::new().await.process().await;
    let row = user(1, "t-1").encrypt(&crypto).await.unwrap();
    let other = user(2, "t-1").encrypt(&crypto).await.unwrap();
    let mixed = EncryptedUser {
        email: other.email,
        address: other.address,
        prefs: row.social.clone().unwrap(),
        ..row
    };
    let error = mixed.decrypt(&crypto).await.unwrap_err();
    assert_eq!(
        names(&error),
        [
            "email",
            "address.street",
            "address.house",
            "address.place.latitude",
            "prefs"
        ]
    );
    assert!(
        error
            .failures()
            .iter()
            .all(|failure| matches!(failure.error, Error::Decrypt { .. }))
    );
    assert!(!error.is_retryable());
    let shown = error.to_string();
    assert!(
        shown.contains("email: ") && shown.contains("address.place.latitude: "),
        "{shown}"
    );
}

#[tokio::test]
async fn a_ciphertext_belongs_to_its_tenant() {
    let crypto = Harness::new().await.process().await;
    let row = user(1, "t-1").encrypt(&crypto).await.unwrap();
    let moved = EncryptedUser {
        tenant_id: "t-2".to_owned(),
        ..row
    };
    assert_eq!(names(&moved.decrypt(&crypto).await.unwrap_err()).len(), 7);
}

#[derive(Encrypt, Debug)]
#[encx(table = "notes", context("tenantId" = tenant))]
struct Narrow {
    #[encx(id)]
    id: i32,
    tenant: String,
    #[encx(encrypt)]
    a: i8,
    #[encx(encrypt)]
    b: bool,
    #[encx(encrypt)]
    c: u128,
}

#[derive(Encrypt)]
#[encx(table = "notes", context("tenantId" = tenant))]
struct Wide {
    #[encx(id)]
    id: i64,
    tenant: String,
    #[encx(encrypt)]
    a: i64,
    #[encx(encrypt)]
    b: String,
    #[encx(encrypt)]
    c: u64,
}

impl EncryptedWide {
    fn narrow(self) -> EncryptedNarrow {
        EncryptedNarrow {
            id: self.id.try_into().unwrap(),
            tenant: self.tenant,
            a: self.a,
            b: self.b,
            c: self.c,
        }
    }
}

#[tokio::test]
async fn widths_may_change_and_types_may_not() {
    let crypto = Harness::new().await.process().await;
    let wide = |a, b: &str| Wide {
        id: 5,
        tenant: "t".to_owned(),
        a,
        b: b.to_owned(),
        c: u64::MAX,
    };
    let row = wide(-3, "\u{1}").encrypt(&crypto).await.unwrap();
    let read = row.narrow().decrypt(&crypto).await.unwrap();
    assert_eq!(
        (read.id, read.a, read.b, read.c),
        (5, -3, true, u128::from(u64::MAX))
    );

    let row = wide(300, "secret").encrypt(&crypto).await.unwrap();
    let error = row.narrow().decrypt(&crypto).await.unwrap_err();
    assert_eq!(names(&error), ["a", "b"]);
    let errors: Vec<_> = error.failures().iter().map(|failure| &failure.error).collect();
    assert!(matches!(errors[0], Error::Codec(CodecError::OutOfRange { .. })));
    assert!(matches!(
        errors[1],
        Error::Codec(CodecError::Length { found: 6, .. })
    ));
    assert!(!format!("{error} {error:?}").contains("300"));
}

#[tokio::test]
async fn what_cannot_be_encoded_asks_for_no_key() {
    let harness = Harness::new().await;
    let crypto = harness.process().await;
    harness.kms().reset_calls();
    let mut narrow = Narrow {
        id: 1,
        tenant: "t".to_owned(),
        a: 1,
        b: true,
        c: u128::MAX,
    };
    assert_eq!(names(&narrow.encrypt(&crypto).await.unwrap_err()), ["c"]);
    narrow.tenant = String::new();
    let error = narrow.encrypt(&crypto).await.unwrap_err();
    assert_eq!(names(&error), [RecordError::CONTEXT, "c"]);
    assert!(matches!(error.failures()[0].error, Error::Context(_)));
    assert_eq!((harness.kms().calls().total(), harness.store().loads()), (0, 0));
}

#[tokio::test]
async fn a_row_without_a_context_fails_alone() {
    let crypto = Harness::new().await.process().await;
    let rows = encx::record::encrypt_all(&crypto, &[user(1, "a"), user(2, "a")])
        .await
        .unwrap();
    let mut rows = rows.into_iter();
    let mut broken = rows.next().unwrap();
    broken.tenant_id.clear();
    let each = encx::record::decrypt_each::<crate::User, _>(&crypto, [broken, rows.next().unwrap()]).await;
    let error = each[0].as_ref().unwrap_err();
    assert!(matches!(
        error.failures(),
        [FieldFailure {
            error: Error::Context(_),
            ..
        }]
    ));
    assert_eq!(each[1].as_ref().unwrap(), &user(2, "a"));
}

#[tokio::test]
async fn an_outage_is_retryable_and_names_all_fields() {
    let harness = Harness::new().await;
    let row = user(1, "a").encrypt(&harness.process().await).await.unwrap();
    harness.kms().fail_next(100, KmsErrorKind::Unavailable);
    let error = row.decrypt(&harness.process().await).await.unwrap_err();
    assert!(error.is_retryable(), "{error}");
    assert_eq!(names(&error).len(), 7);
    let error = user(1, "b").encrypt(&harness.process().await).await.unwrap_err();
    assert!(error.is_retryable(), "{error}");
    assert_eq!(names(&error).len(), 7);
}
