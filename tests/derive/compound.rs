//! Indexes over several fields: equal to those computed by hand, with terms for queries and verified candidates.

use encx::record::IndexColumn;
use encx::search::{BlindIndex, IndexField, IndexPart, Normalizer};
use encx::{Encrypt, EncryptionContext, Error};
use encx_testkit::Harness;

#[derive(Encrypt, Clone, Debug, PartialEq)]
#[encx(table = "patients", context("tenantId" = tenant_id, "purpose" = "pii"))]
#[encx(index(name = "name_born", fields = [last_name(normalize = "case-fold"), born], bits = 32))]
#[encx(index(name = "reached", fields = [phone(normalize = PHONE), r#type, born], bits = 128, unique))]
#[encx(index(name = "door", fields = [phone, last_name], bits = 16, column = "door_term", context("purpose" = "door")))]
#[encx(encrypted(derive(Clone, Debug, serde::Serialize)))]
#[encx(index(name = "hidden", fields = [born, last_name], bits = 16, attr(serde(skip))))]
struct Patient {
    #[encx(id)]
    id: i64,
    tenant_id: String,
    #[encx(
        encrypt,
        rename = "surname",
        index(bits = 16, attr(serde(rename = "by_name")))
    )]
    last_name: String,
    #[encx(encrypt)]
    born: i32,
    #[encx(encrypt)]
    phone: Option<String>,
    #[encx(encrypt)]
    r#type: Option<String>,
}

const PHONE: Normalizer = Normalizer::Phone;

fn patient(id: i64, tenant: &str, name: &str, born: i32) -> Patient {
    Patient {
        id,
        tenant_id: tenant.to_owned(),
        last_name: name.to_owned(),
        born,
        phone: Some("+49 (151) 123".to_owned()),
        r#type: Some("private".to_owned()),
    }
}

/// Computed by hand, to check that columns, normalizers, name and bits are those of the attribute.
#[tokio::test]
async fn the_index_is_the_one_that_the_attribute_says() {
    const NAME_BORN: IndexField = IndexField::compound(
        "patients",
        &[
            IndexPart::new("surname").normalize(Normalizer::CaseFold),
            IndexPart::new("born"),
        ],
        32,
    )
    .named("name_born");
    let crypto = Harness::new().await.process().await;
    let row = patient(1, "t-1", "Straße", 1815).encrypt(&crypto).await.unwrap();
    let context = EncryptionContext::from_pairs([("tenantId", "t-1"), ("purpose", "pii")]).unwrap();
    let value = ("STRASSE", 1815);
    let by_hand = crypto.blind_index(&context, &NAME_BORN, value).await.unwrap();
    assert_eq!(row.name_born_index, by_hand);
    let json = serde_json::to_value(&row).unwrap();
    assert!(json["by_name"].is_string() && json.get("hidden_index").is_none());

    let manifest = Patient::encx_manifest();
    let indexes: Vec<_> = manifest
        .lines()
        .filter(|line| line.starts_with("index"))
        .collect();
    assert_eq!(
        indexes,
        [
            "index of surname as exact/1, 16 bits, in patients.surname_index",
            "index of surname as case-fold/1, born as exact/1, named name_born, 32 bits, in patients.name_born_index",
            "index of phone as phone/1, type as exact/1, born as exact/1, named reached, 128 bits, in \
             patients.reached_index",
            "index of phone as exact/1, surname as exact/1, named door, 16 bits, in patients.door_term, context \
             purpose = \"door\"",
            "index of born as exact/1, surname as exact/1, named hidden, 16 bits, in patients.hidden_index",
        ]
    );

    let columns = Patient::encx_columns();
    let indexes = |column: &str| {
        let column = columns.iter().find(|described| described.column == column);
        column.unwrap().indexes.clone()
    };
    assert_eq!(
        indexes("surname"),
        [
            IndexColumn::new("surname_index", "exact", 16),
            IndexColumn::new("name_born_index", "case-fold", 32)
                .named("name_born")
                .with("born", "exact"),
        ]
    );
    assert_eq!(
        indexes("phone"),
        [
            IndexColumn::new("reached_index", "phone", 128)
                .named("reached")
                .with("type", "exact")
                .with("born", "exact"),
            IndexColumn::new("door_term", "exact", 16)
                .named("door")
                .with("surname", "exact")
                .context_value("purpose", "door"),
        ]
    );
    assert_eq!(
        indexes("born"),
        [IndexColumn::new("hidden_index", "exact", 16)
            .named("hidden")
            .with("surname", "exact")]
    );
    assert_eq!(indexes("type"), []);
}

#[tokio::test]
async fn only_rows_that_are_equal_in_all_fields_match() {
    let crypto = Harness::new().await.process().await;
    let people = [
        patient(1, "t-1", "Lovelace", 1815),
        patient(2, "t-1", "LOVELACE", 1815),
        patient(3, "t-1", "Lovelace", 1816),
        patient(4, "t-1", "Babbage", 1815),
    ];
    let rows = encx::record::encrypt_all(&crypto, &people).await.unwrap();
    let terms = Patient::name_born_terms(&crypto, "t-1", ("lovelace", 1815))
        .await
        .unwrap();
    let found = rows.iter().filter(|row| terms.contains(&row.name_born_index));
    assert_eq!(found.map(|row| row.id).collect::<Vec<_>>(), [1, 2]);
    // Even if chance had made the others candidates.
    let matching = Patient::matching_name_born(&crypto, "t-1", rows.clone(), ("lovelace", 1815));
    assert_eq!(matching.await.unwrap(), people[..2]);

    let other = Patient::matching_name_born(&crypto, "t-2", rows.clone(), ("lovelace", 1815));
    let error = other.await.unwrap_err();
    assert!(matches!(error.failures()[0].error, Error::OtherContext));
    // With a context of its own: the tenant is not required, but can be given.
    let value = ("+49 (151) 123", "Babbage");
    let terms = Patient::door_terms(&crypto, value).await.unwrap();
    assert!(terms.contains(&rows[3].door_index.unwrap()));
    let tenant = EncryptionContext::from_pairs([("tenantId", "t-1"), ("purpose", "pii")]).unwrap();
    let matching = Patient::matching_door_in(&crypto, &tenant, rows, value);
    assert_eq!(matching.await.unwrap(), people[3..]);
}

#[tokio::test]
async fn a_row_in_which_a_part_is_null_is_not_indexed() {
    let crypto = Harness::new().await.process().await;
    let full = patient(1, "t-1", "Lovelace", 1815);
    let [mut no_phone, mut no_type] = [2, 3].map(|id| patient(id, "t-1", "Lovelace", 1815));
    (no_phone.phone, no_type.r#type) = (None, None);
    let all = [full.clone(), no_phone, no_type];
    let rows = encx::record::encrypt_all(&crypto, &all).await.unwrap();
    let indexed: Vec<_> = rows.iter().map(|row| row.reached_index.is_some()).collect();
    assert_eq!(indexed, [true, false, false]);
    // The fields that follow in the struct still have their own index.
    assert_eq!(rows[1].door_index, None::<BlindIndex>);
    let hidden = Patient::hidden_terms(&crypto, "t-1", (1815, "Lovelace"))
        .await
        .unwrap();
    assert!(rows.iter().all(|row| hidden.contains(&row.hidden_index)));
    let value = ("+49151123", "private", 1815);
    let terms = Patient::reached_terms(&crypto, "t-1", value).await.unwrap();
    assert!(terms.contains(&rows[0].reached_index.unwrap()));
    let matching = Patient::matching_reached(&crypto, "t-1", rows, value);
    assert_eq!(matching.await.unwrap(), [full]);
}

#[tokio::test]
async fn what_cannot_be_indexed_is_named() {
    let crypto = Harness::new().await.process().await;
    let mut patient = patient(1, "t-1", "Lovelace", 1815);
    patient.phone = Some("ask Babbage".to_owned());
    let error = patient.encrypt(&crypto).await.unwrap_err();
    let names: Vec<_> = error.failures().iter().map(|failure| &*failure.field).collect();
    assert_eq!(names, ["phone, type, born"]);
    assert!(!error.to_string().contains("Babbage"));
}
