use super::*;

#[track_caller]
#[allow(clippy::needless_pass_by_value, reason = "literals read better")]
fn pinned<T: FieldCodec + PartialEq + fmt::Debug>(value: T, bytes: impl AsRef<[u8]>) {
    let bytes = bytes.as_ref();
    assert_eq!(value.encode().unwrap().as_bytes(), bytes);
    assert_eq!(T::decode(bytes).unwrap(), value);
}

#[test]
fn bytes_are_pinned() {
    pinned("é".to_owned(), b"\xc3\xa9");
    pinned::<Box<str>>("a".into(), b"a");
    pinned::<Arc<str>>("a".into(), b"a");
    pinned(Cow::Borrowed("a"), b"a");
    pinned(vec![0_u8, 255], [0, 255]);
    pinned([1_u8, 2], [1, 2]);
    pinned::<Box<[u8]>>(Box::new([1, 2]), [1, 2]);
    pinned(Cow::Borrowed(&[1_u8, 2][..]), [1, 2]);
    pinned(Zeroizing::new("a".to_owned()), b"a");
    pinned(Box::new(true), [1]);
    pinned(true, [1]);
    pinned(false, [0]);
    pinned(1.5_f64, [0x3f, 0xf8, 0, 0, 0, 0, 0, 0]);
    pinned(1.5_f32, [0x3f, 0xf8, 0, 0, 0, 0, 0, 0]);
    pinned(f64::NEG_INFINITY, [0xff, 0xf0, 0, 0, 0, 0, 0, 0]);
    pinned(f32::NEG_INFINITY, [0xff, 0xf0, 0, 0, 0, 0, 0, 0]);
    pinned(Uuid::from_bytes([9; 16]), [9; 16]);
    let minus_two = [[0xff; 15].as_slice(), &[0xfe]].concat();
    pinned(-2_i8, &minus_two);
    pinned(-2_i64, &minus_two);
    pinned(-2_i128, &minus_two);
    let large = u64::MAX.to_be_bytes();
    pinned(u64::MAX, [[0; 8], large].concat());
    pinned(u128::from(u64::MAX), [[0; 8], large].concat());
}

#[test]
fn what_does_not_fit_is_refused() {
    fn refused<T: FieldCodec>(bytes: &[u8]) -> CodecError {
        T::decode(bytes).map(|_| ()).unwrap_err()
    }
    let of = |value: i128| value.to_be_bytes();
    assert!(matches!(refused::<i8>(&of(128)), CodecError::OutOfRange { .. }));
    assert!(matches!(refused::<u64>(&of(-1)), CodecError::OutOfRange { .. }));
    assert!(matches!(u128::MAX.encode(), Err(CodecError::OutOfRange { .. })));
    assert!(matches!(
        refused::<i64>(&[0; 8]),
        CodecError::Length {
            found: 8,
            expected: 16,
            ..
        }
    ));
    assert!(matches!(refused::<[u8; 4]>(&[0; 5]), CodecError::Length { .. }));
    assert!(matches!(refused::<bool>(&[2]), CodecError::Malformed { .. }));
    assert!(matches!(refused::<bool>(&[]), CodecError::Length { .. }));
    assert!(matches!(refused::<String>(&[0xff]), CodecError::Malformed { .. }));
    assert!(matches!(refused::<Uuid>(&[0; 15]), CodecError::Length { .. }));
    for wide in [0.1, f64::MAX, f64::MIN_POSITIVE] {
        let refused = refused::<f32>(&wide.to_be_bytes());
        assert!(matches!(refused, CodecError::OutOfRange { .. }), "{wide}");
    }
    assert!(f32::decode(&f64::NAN.to_be_bytes()).unwrap().is_nan());
}

#[test]
fn debug_shows_no_content() {
    assert_eq!(
        format!("{:?}", "ada".to_owned().encode()),
        "Ok(Encoded([REDACTED]))"
    );
}

#[cfg(feature = "json")]
#[test]
fn json_errors_quote_nothing() {
    assert_eq!(
        json::encode(&vec![Some("a"), None]).unwrap().as_bytes(),
        br#"["a",null]"#
    );
    let long = vec!["x".repeat(1000); 3];
    let written = json::encode(&long).unwrap();
    assert_eq!(json::decode::<Vec<String>>(written.as_bytes()).unwrap(), long);
    let error = json::decode::<Vec<u8>>(br#""hunter2""#).unwrap_err();
    assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
    assert!(matches!(error, CodecError::Json { line: 1, .. }));
    assert!(json::decode::<u8>(b"1 2").is_err());
}

#[cfg(feature = "chrono")]
#[test]
fn dates_of_chrono_are_pinned() {
    use ::chrono::{DateTime, NaiveDate, NaiveTime, Utc};

    let date = NaiveDate::from_ymd_opt(2026, 1, 31).unwrap();
    let time = NaiveTime::from_hms_nano_opt(23, 59, 1, 42).unwrap();
    pinned(date, "2026-01-31");
    pinned(time, "23:59:01.000000042");
    pinned(date.and_time(time), "2026-01-31T23:59:01.000000042");
    pinned(date.and_time(time).and_utc(), "2026-01-31T23:59:01.000000042Z");
    for year in [-1, 10_000] {
        let date = NaiveDate::from_ymd_opt(year, 1, 1).unwrap();
        assert!(matches!(date.encode(), Err(CodecError::OutOfRange { .. })));
    }
    let leap = NaiveTime::from_hms_nano_opt(23, 59, 59, 1_500_000_000).unwrap();
    assert!(matches!(leap.encode(), Err(CodecError::OutOfRange { .. })));
    for wrong in [
        "2026-01-31T23:59:01.000000042",
        "2026-01-31T23:59:01.00000004Z",
        "2026-01-31T23:59:01.000000042z",
        "2026-02-30T23:59:01.000000042Z",
        "2026-01-31T24:59:01.000000042Z",
        "+026-01-31T23:59:01.000000042Z",
        "2026-01-31T23:59:60.000000042Z",
    ] {
        assert!(DateTime::<Utc>::decode(wrong.as_bytes()).is_err(), "{wrong}");
    }
}

#[cfg(feature = "time")]
#[test]
fn dates_of_time_are_pinned() {
    use ::time::{Date, Month, OffsetDateTime, PrimitiveDateTime, Time, UtcOffset};

    let date = Date::from_calendar_date(2026, Month::January, 31).unwrap();
    let time = Time::from_hms_nano(23, 59, 1, 42).unwrap();
    let local = PrimitiveDateTime::new(date, time);
    pinned(date, "2026-01-31");
    pinned(time, "23:59:01.000000042");
    pinned(local, "2026-01-31T23:59:01.000000042");
    pinned(local.assume_utc(), "2026-01-31T23:59:01.000000042Z");
    let elsewhere = local.assume_offset(UtcOffset::from_hms(2, 0, 0).unwrap());
    pinned(elsewhere, "2026-01-31T21:59:01.000000042Z");
    assert!(OffsetDateTime::decode(b"2026-13-31T23:59:01.000000042Z").is_err());
    assert!(
        Date::from_calendar_date(-1, Month::May, 1)
            .unwrap()
            .encode()
            .is_err()
    );
    let edge = PrimitiveDateTime::MIN.assume_offset(UtcOffset::from_hms(2, 0, 0).unwrap());
    assert!(edge.encode().is_err());
}
