//! Structs of every shape: generics, lifetimes, composite ids, custom names and derives.

use std::borrow::Cow;
use std::fmt::Debug;

use encx::record::{CodecError, Encoded, FieldCodec};
use encx::{Encrypt, RowId, RowIdParts};
use encx_testkit::Harness;
use serde::Serialize;
use serde::de::DeserializeOwned;

#[derive(Encrypt, Clone, Debug, PartialEq)]
#[encx(table = "generic", context("tenantId" = tenant))]
struct Generic<'a, T, J, P = u8, const N: usize = 3>
where
    T: FieldCodec + Debug,
    J: Serialize + DeserializeOwned,
{
    #[encx(id)]
    id: i64,
    tenant: Cow<'a, str>,
    #[encx(encrypt)]
    value: T,
    #[encx(encrypt)]
    maybe: Option<T>,
    #[encx(json)]
    json: Vec<J>,
    plain: P,
    #[encx(encrypt)]
    bytes: [u8; N],
    #[encx(encrypt)]
    note: Cow<'a, str>,
}

#[tokio::test]
async fn generics_and_lifetimes_work() {
    let crypto = Harness::new().await.process().await;
    let tenant = String::from("t");
    let generic = Generic::<'_, String, u8, bool, 2> {
        id: 1,
        tenant: Cow::Borrowed(&tenant),
        value: "v".to_owned(),
        maybe: None,
        json: vec![1],
        plain: true,
        bytes: [1, 2],
        note: Cow::Borrowed("note"),
    };
    // A parameter is dropped if only encrypted fields used it.
    let row: EncryptedGeneric<'_, bool> = generic.encrypt(&crypto).await.unwrap();
    let read: Generic<'_, String, u8, bool, 2> = row.decrypt(&crypto).await.unwrap();
    assert_eq!(read, generic);
}

#[derive(Encrypt, Clone, Debug, PartialEq)]
#[encx(fragment)]
struct Pair<T> {
    #[encx(encrypt)]
    left: T,
    right: u8,
}

#[derive(Encrypt, Debug, PartialEq)]
#[encx(table = "holders", context("purpose" = "pii"))]
struct Holder<F, K>
where
    F: encx::record::Fragment<Encrypted: Debug + Clone>,
    K: Clone + Debug,
{
    #[encx(id)]
    id: K,
    #[encx(nested)]
    inner: F,
}

#[tokio::test]
async fn generic_ids_and_fragments_work() {
    let crypto = Harness::new().await.process().await;
    let inner = Pair {
        left: 1_i32,
        right: 2,
    };
    let holder = Holder {
        id: "a".to_owned(),
        inner,
    };
    let row = holder.encrypt(&crypto).await.unwrap();
    assert_eq!(row.inner.right, 2);
    assert_eq!(row.clone().decrypt(&crypto).await.unwrap(), holder);
}

struct LineId(u32);

impl RowId for LineId {
    fn append_to(&self, parts: RowIdParts) -> RowIdParts {
        self.0.append_to(parts)
    }
}

impl Clone for LineId {
    fn clone(&self) -> Self {
        Self(self.0)
    }
}

mod outer {
    use super::{LineId, Money};
    use encx::Encrypt;

    /// A type that is renamed in SQL, keeps its names in the AAD, and has an id of two parts.
    #[derive(Encrypt)]
    #[encx(table = "line_items", sql_table = "shop.lines")]
    #[encx(context("purpose" = "orders"), crate = "encx")]
    #[encx(encrypted(name = "LineRow", vis = "pub(super)", derive(serde::Serialize, PartialEq)))]
    #[encx(encrypted(attr(serde(rename_all = "camelCase"), must_use = "it is to be kept")))]
    pub(super) struct Line {
        #[encx(id)]
        pub(super) order: String,
        #[encx(id(kind = "integer"), rename = "line_no", attr(serde(skip)))]
        pub(super) line: LineId,
        #[encx(encrypt, attr(serde(rename = "cents")))]
        pub(super) unit_price: Money,
    }
    impl PartialEq for LineId {
        fn eq(&self, other: &Self) -> bool {
            self.0 == other.0
        }
    }
}

#[derive(Debug, PartialEq)]
struct Money(i64);

impl FieldCodec for Money {
    const FORMAT: &'static str = i64::FORMAT;

    fn encode(&self) -> Result<Encoded<'_>, CodecError> {
        if self.0 < 0 {
            return Err(CodecError::Other("a price is negative".into()));
        }
        self.0.encode()
    }

    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        i64::decode(bytes).map(Self)
    }
}

#[tokio::test]
async fn names_derives_attributes_and_composite_ids_are_the_users() {
    let crypto = Harness::new().await.process().await;
    let line = |line, price| outer::Line {
        order: "o-1".to_owned(),
        line: LineId(line),
        unit_price: Money(price),
    };
    let row: outer::LineRow = line(1, 995).encrypt(&crypto).await.unwrap();
    let json = serde_json::to_value(&row).unwrap();
    assert_eq!(json["order"], "o-1");
    assert!(json["cents"].is_string() && json.get("line").is_none());
    let other = line(2, 995).encrypt(&crypto).await.unwrap();
    let moved = outer::LineRow {
        line: LineId(1),
        ..other
    };
    assert!(row != moved);
    assert!(moved.decrypt(&crypto).await.is_err(), "both parts of the id bind");
    assert_eq!(row.decrypt(&crypto).await.unwrap().unit_price, Money(995));
    let refused = line(1, -1).encrypt(&crypto).await.err().unwrap();
    assert!(refused.to_string().contains("negative"), "{refused}");
    assert_eq!(
        outer::Line::encx_manifest(),
        "table line_items\nid order: text\nid line_no: integer\ncontext purpose = \"orders\"\n\
         field unit_price: integer, in shop.lines.unit_price\n"
    );
}

/// Every type with its own codec, in one row, together with timestamps.
#[derive(Encrypt, Clone, Debug, PartialEq)]
#[encx(table = "kinds", context("purpose" = "pii"))]
struct Kinds {
    #[encx(id)]
    id: [u8; 2],
    #[encx(encrypt)]
    uuid: uuid::Uuid,
    #[encx(encrypt)]
    bytes: Vec<u8>,
    #[encx(encrypt)]
    flag: bool,
    #[encx(encrypt)]
    float: f32,
    #[encx(encrypt)]
    seen: chrono::DateTime<chrono::Utc>,
    #[encx(encrypt)]
    born: Option<chrono::NaiveDate>,
}

/// The same row, read with `time`.
#[derive(Encrypt)]
#[encx(table = "kinds", context("purpose" = "pii"), encrypted(derive()))]
struct Moments {
    #[encx(id)]
    id: [u8; 2],
    #[encx(encrypt)]
    seen: time::OffsetDateTime,
    #[encx(encrypt)]
    born: Option<time::Date>,
}

#[tokio::test]
async fn every_type_with_a_codec_can_be_a_field() {
    let crypto = Harness::new().await.process().await;
    let seen = chrono::DateTime::from_timestamp(1_800_000_000, 42).unwrap();
    let kinds = Kinds {
        id: [1, 2],
        uuid: uuid::Uuid::max(),
        bytes: vec![0, 255],
        flag: true,
        float: 0.1,
        seen,
        born: Some(seen.date_naive()),
    };
    let row = kinds.encrypt(&crypto).await.unwrap();
    assert_eq!(row.clone().decrypt(&crypto).await.unwrap(), kinds);
    let moments = EncryptedMoments {
        id: row.id,
        seen: row.seen,
        born: row.born,
    };
    let moments = moments.decrypt(&crypto).await.unwrap();
    assert_eq!(moments.id, kinds.id);
    assert_eq!(moments.seen.unix_timestamp_nanos(), 1_800_000_000_000_000_042);
    assert_eq!(moments.born.unwrap().to_string(), "2027-01-15");
}
