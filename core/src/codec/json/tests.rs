use std::collections::{BTreeMap, BTreeSet, HashMap, LinkedList, VecDeque};
use std::fmt::Debug;
use std::net::IpAddr;
use std::num::NonZeroU8;
use std::ops::{Bound, RangeInclusive};
use std::time::Duration;

use proptest::prelude::*;
use serde::Deserialize;
use uuid::Uuid;

use super::*;

/// Asserts that a value reads back equal, or is not written at all.
fn comes_back<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T) -> Result<(), TestCaseError> {
    if let Ok(written) = encode(value) {
        prop_assert_eq!(&decode::<T>(written.as_bytes()).unwrap(), value);
    }
    Ok(())
}

#[track_caller]
fn refused<T: Serialize + DeserializeOwned>(value: &T) -> &'static str {
    match encode(value).map(|written| String::from_utf8(written.as_bytes().to_vec()).unwrap()) {
        Err(CodecError::Unreadable { what }) => what,
        other => panic!("not refused as unreadable: {other:?}"),
    }
}

#[derive(Serialize, Deserialize, Debug, PartialEq)]
struct Score {
    ratio: f64,
    best: Option<f64>,
}

#[derive(Serialize, Deserialize, Debug, PartialEq)]
struct Wrapped(f32);

#[derive(Serialize, Deserialize, Debug, PartialEq)]
struct Nothing;

#[derive(Serialize, Deserialize, Debug, PartialEq)]
enum Kind {
    Unit,
    Newtype(f64),
    Tuple(u8, f64),
    Struct { a: Option<Box<Kind>> },
}

#[test]
fn floats_that_json_has_not_are_refused_wherever_they_are() {
    for float in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        #[allow(clippy::cast_possible_truncation, reason = "it stays what it is")]
        let single = float as f32;
        let score = |ratio, best| Score { ratio, best };
        let all = [
            refused(&float),
            refused(&single),
            refused(&score(float, None)),
            refused(&score(1.0, Some(float))),
            refused(&vec![vec![(1, float)]]),
            refused(&[single; 2]),
            refused(&Wrapped(single)),
            refused(&Kind::Newtype(float)),
            refused(&Kind::Tuple(1, float)),
            refused(&Kind::Struct {
                a: Some(Box::new(Kind::Newtype(float))),
            }),
            refused(&BTreeMap::from(
                [("a", 1.0), ("b", float)].map(|(key, of)| (key.to_owned(), of)),
            )),
            refused(&(1.0..=float)),
            refused(&Bound::Included(float)),
        ];
        assert!(all.iter().all(|what| what.contains("NaN")), "{all:?}");
    }
    let score = Score {
        ratio: -0.0,
        best: Some(f64::MIN_POSITIVE),
    };
    let written = encode(&score).unwrap();
    assert_eq!(decode::<Score>(written.as_bytes()).unwrap(), score);
}

/// `serde_json` refuses these itself. JSON keys are text, so a float key would no longer be a float.
#[test]
fn keys_that_json_has_not_are_refused() {
    #[derive(Serialize, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
    struct Key(u8, u8);
    #[derive(Deserialize)]
    struct FloatKeys;
    impl Serialize for FloatKeys {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.collect_map([(f64::NAN, 1)])
        }
    }
    assert!(refused(&FloatKeys).contains("NaN"));
    for error in [
        encode(&BTreeMap::from([(Key(1, 2), 3)])).unwrap_err(),
        encode(&BTreeMap::from([(vec![1], 3)])).unwrap_err(),
        encode(&BTreeMap::from([(None::<u8>, 3)])).unwrap_err(),
        encode(&BTreeMap::from([((), 3)])).unwrap_err(),
    ] {
        assert!(matches!(error, CodecError::Json { .. }), "{error}");
    }
}

#[test]
fn some_of_nothing_is_refused_and_nothing_is_not() {
    let all = [
        refused(&Some(None::<u8>)),
        refused(&vec![Some(())]),
        refused(&Some(Nothing)),
        refused(&BTreeMap::from([(1, Some(Some(None::<u8>)))])),
        refused(&Some(serde_json::Value::Null)),
    ];
    assert!(all.iter().all(|what| what.contains("Some(None)")), "{all:?}");
    for value in [None, Some(Some(1))] {
        comes_back::<Option<Option<u8>>>(&value).unwrap();
        encode(&value).unwrap();
    }
    encode(&()).unwrap();
    encode(&Nothing).unwrap();
    encode(&vec![None::<()>]).unwrap();
    encode(&Some(vec![()])).unwrap();
    encode(&serde_json::json!({"a": null})).unwrap();
}

#[test]
fn what_its_own_type_cannot_read_is_refused() {
    #[derive(Serialize, Deserialize)]
    struct NoDefault {
        #[serde(skip_serializing_if = "Vec::is_empty")]
        list: Vec<u8>,
    }
    #[derive(Serialize, Deserialize)]
    struct OneWay {
        #[serde(rename(serialize = "written"))]
        read: u8,
    }
    #[derive(Serialize, Deserialize)]
    struct Flat {
        #[serde(flatten)]
        inner: Wide,
    }
    #[derive(Serialize, Deserialize)]
    struct Wide {
        wide: u128,
    }
    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Untagged {
        Wide(u128),
        Text(String),
    }
    assert!(refused(&NoDefault { list: Vec::new() }).contains("skip_serializing_if"));
    encode(&NoDefault { list: vec![1] }).unwrap();
    refused(&OneWay { read: 1 });
    // Serde buffers flattened and untagged values in a form without 128-bit integers.
    refused(&Flat {
        inner: Wide { wide: u128::MAX },
    });
    refused(&Untagged::Wide(u128::MAX));
    encode(&Untagged::Text(String::new())).unwrap();
    // serde_json reads 128 levels, but writes any number.
    let deep = |levels| (0..levels).fold(serde_json::Value::Null, |value, _| vec![value].into());
    encode(&deep(100)).unwrap();
    refused(&deep(200));
}

#[test]
fn a_refusal_shows_no_value() {
    let error = encode(&(f64::NAN, "hunter2".to_owned())).unwrap_err();
    assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
    assert!(error.to_string().contains("`Option` or a text"), "{error}");
}

proptest! {
    #[test]
    fn numbers_come_back(
        double in any::<f64>(),
        single in any::<f32>(),
        wide in any::<(i128, u128)>(),
        small in any::<(i8, u8, i16, u16, i32, u32, i64, u64)>(),
    ) {
        comes_back(&double)?;
        comes_back(&single)?;
        comes_back(&wide)?;
        comes_back(&small)?;
        comes_back(&(Some(double), Wrapped(single)))?;
    }

    #[test]
    fn texts_and_bytes_come_back(text in any::<String>(), scalar in any::<char>(), bytes in any::<Vec<u8>>()) {
        comes_back(&text)?;
        comes_back(&scalar)?;
        comes_back(&bytes)?;
        comes_back(&Some(text.clone()))?;
        comes_back(&BTreeMap::from([(scalar, text.clone())]))?;
        comes_back(&std::path::PathBuf::from(text))?;
    }

    #[test]
    fn collections_come_back(
        list in any::<Vec<Option<f64>>>(),
        by_number in any::<BTreeMap<i128, Option<String>>>(),
        by_flag in any::<BTreeMap<bool, (u8, ())>>(),
        set in any::<BTreeSet<(u8, Option<bool>)>>(),
        nested in any::<Vec<Option<Option<u8>>>>(),
        result in any::<Result<u8, Option<String>>>(),
    ) {
        comes_back(&list)?;
        comes_back(&list.iter().copied().collect::<VecDeque<_>>())?;
        comes_back(&list.iter().copied().collect::<LinkedList<_>>())?;
        comes_back(&by_number)?;
        comes_back(&by_number.into_iter().collect::<HashMap<_, _>>())?;
        comes_back(&by_flag)?;
        comes_back(&set)?;
        comes_back(&nested)?;
        comes_back(&result)?;
    }

    #[test]
    fn other_types_of_std_come_back(
        duration in any::<Duration>(),
        address in any::<IpAddr>(),
        ends in any::<(i64, i64)>(),
        id in any::<u128>(),
        one in 1_u8..,
    ) {
        comes_back(&duration)?;
        comes_back(&address)?;
        comes_back(&RangeInclusive::new(ends.0, ends.1))?;
        comes_back(&(ends.0..ends.1))?;
        comes_back(&Bound::Excluded(ends.0))?;
        comes_back(&Uuid::from_u128(id).to_string())?;
        comes_back(&NonZeroU8::new(one))?;
        comes_back(&(std::time::UNIX_EPOCH + duration / 2))?;
    }
}
