//! Refuses values that JSON writes but does not read back: floats that are not numbers, and `Some` of nothing.

use std::fmt;

use serde::ser::{self, Serialize, Serializer};

/// Visits a value and writes nothing.
#[derive(Clone, Copy)]
pub(super) struct Readable {
    /// Whether the value is directly inside a `Some`.
    in_some: bool,
}

/// Why a visit stopped.
#[derive(Debug)]
pub(super) enum Unreadable {
    /// The value's own `Serialize` failed. `serde_json` reports the error.
    Failed,
    /// NaN or an infinity, which JSON writes as `null`.
    Float,
    /// `Some(None)`, `Some(())` and the like, which JSON writes as `null` and reads as `None`.
    SomeOfNothing,
}

impl Readable {
    /// Checks a value.
    pub(super) fn check<T: Serialize + ?Sized>(value: &T) -> Result<(), Unreadable> {
        value.serialize(Self { in_some: false })
    }

    fn null(self) -> Result<(), Unreadable> {
        if self.in_some {
            Err(Unreadable::SomeOfNothing)
        } else {
            Ok(())
        }
    }
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the value cannot be kept as JSON")
    }
}

impl std::error::Error for Unreadable {}

impl ser::Error for Unreadable {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self::Failed
    }
}

/// Accepts a value as it is.
macro_rules! accept {
    ($($method:ident($($type:ty),*);)+) => {$(
        fn $method(self, $(_: $type),*) -> Result<(), Unreadable> {
            Ok(())
        }
    )+};
}

impl Serializer for Readable {
    type Ok = ();
    type Error = Unreadable;
    type SerializeSeq = Self;
    type SerializeTuple = Self;
    type SerializeTupleStruct = Self;
    type SerializeTupleVariant = Self;
    type SerializeMap = Self;
    type SerializeStruct = Self;
    type SerializeStructVariant = Self;

    accept! {
        serialize_bool(bool);
        serialize_i8(i8);
        serialize_i16(i16);
        serialize_i32(i32);
        serialize_i64(i64);
        serialize_i128(i128);
        serialize_u8(u8);
        serialize_u16(u16);
        serialize_u32(u32);
        serialize_u64(u64);
        serialize_u128(u128);
        serialize_char(char);
        serialize_str(&str);
        serialize_bytes(&[u8]);
        serialize_unit_variant(&'static str, u32, &'static str);
    }

    fn serialize_f32(self, float: f32) -> Result<(), Unreadable> {
        self.serialize_f64(float.into())
    }

    fn serialize_f64(self, float: f64) -> Result<(), Unreadable> {
        if float.is_finite() {
            Ok(())
        } else {
            Err(Unreadable::Float)
        }
    }

    fn serialize_none(self) -> Result<(), Unreadable> {
        self.null()
    }

    fn serialize_unit(self) -> Result<(), Unreadable> {
        self.null()
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Unreadable> {
        self.null()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Unreadable> {
        value.serialize(Self { in_some: true })
    }

    /// JSON writes a newtype as its inner value.
    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), Unreadable> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        value: &T,
    ) -> Result<(), Unreadable> {
        Self::check(value)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Self, Unreadable> {
        Ok(self)
    }

    fn serialize_tuple(self, _: usize) -> Result<Self, Unreadable> {
        Ok(self)
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self, Unreadable> {
        Ok(self)
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self, Unreadable> {
        Ok(self)
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Self, Unreadable> {
        Ok(self)
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self, Unreadable> {
        Ok(self)
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self, Unreadable> {
        Ok(self)
    }

    /// The default would print the value into memory that is not wiped.
    fn collect_str<T: fmt::Display + ?Sized>(self, _: &T) -> Result<(), Unreadable> {
        Ok(())
    }
}

/// Checks the members of a compound value.
macro_rules! members {
    ($($trait:ident: $method:ident($($key:ident: $type:ty),*);)+) => {$(
        impl ser::$trait for Readable {
            type Ok = ();
            type Error = Unreadable;

            fn $method<T: Serialize + ?Sized>(&mut self, $($key: $type,)* value: &T) -> Result<(), Unreadable> {
                Self::check(value)
            }

            fn end(self) -> Result<(), Unreadable> {
                Ok(())
            }
        }
    )+};
}

members! {
    SerializeSeq: serialize_element();
    SerializeTuple: serialize_element();
    SerializeTupleStruct: serialize_field();
    SerializeTupleVariant: serialize_field();
    SerializeStruct: serialize_field(_key: &'static str);
    SerializeStructVariant: serialize_field(_key: &'static str);
}

impl ser::SerializeMap for Readable {
    type Ok = ();
    type Error = Unreadable;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Unreadable> {
        Self::check(key)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unreadable> {
        Self::check(value)
    }

    fn end(self) -> Result<(), Unreadable> {
        Ok(())
    }
}
