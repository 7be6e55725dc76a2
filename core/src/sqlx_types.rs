//! Columns of sqlx 0.9: `Ciphertext` and `BlindIndex` are bytes, `PasswordHash` is text.

use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::{Database, Decode, Encode, QueryBuilder, Type};

use crate::blind_index::{BlindIndex, IndexTerms};
use crate::ciphertext::Ciphertext;
#[cfg(feature = "password")]
use crate::password::PasswordHash;

/// Makes a type a column, encoded as its stored type.
macro_rules! column {
    ($(#[$doc:meta])* $type:ty as $kept:ty $(, or $other:ty)?, |$value:ident| $keep:expr) => {
        $(#[$doc])*
        impl<DB: Database> Type<DB> for $type
        where
            $kept: Type<DB>,
            $($other: Type<DB>,)?
        {
            fn type_info() -> DB::TypeInfo {
                <$kept as Type<DB>>::type_info()
            }

            fn compatible(found: &DB::TypeInfo) -> bool {
                <$kept as Type<DB>>::compatible(found) $(|| <$other as Type<DB>>::compatible(found))?
            }
        }

        impl<'q, DB: Database> Encode<'q, DB> for $type
        where
            $kept: Encode<'q, DB>,
        {
            fn encode(self, buffer: &mut DB::ArgumentBuffer) -> Result<IsNull, BoxDynError> {
                let kept: $kept = self.into();
                <$kept as Encode<'q, DB>>::encode(kept, buffer)
            }

            fn encode_by_ref(&self, buffer: &mut DB::ArgumentBuffer) -> Result<IsNull, BoxDynError> {
                let $value = self;
                <$kept as Encode<'q, DB>>::encode_by_ref($keep, buffer)
            }
        }

        impl<'r, DB: Database> Decode<'r, DB> for $type
        where
            $kept: Decode<'r, DB>,
        {
            fn decode(value: DB::ValueRef<'r>) -> Result<Self, BoxDynError> {
                Ok(<$type>::parse(<$kept as Decode<'r, DB>>::decode(value)?)?)
            }
        }
    };
}

column! {
    /// A column of bytes: `bytea` in PostgreSQL, `BLOB` in SQLite.
    ///
    /// A column of text decodes too, but [`Ciphertext::parse`] refuses it with an error that explains the column's fault.
    Ciphertext as Vec<u8>, or String, |ciphertext| ciphertext.as_vec()
}

column! {
    /// A column of bytes: `bytea` in PostgreSQL, `BLOB` in SQLite.
    BlindIndex as Vec<u8>, |index| &index.to_vec()
}

#[cfg(feature = "password")]
column! {
    /// A column of text.
    PasswordHash as String, |hash| &hash.as_str().to_owned()
}

/// Makes a type an array element, encoded as its stored type.
#[cfg(feature = "sqlx-0_9-postgres")]
macro_rules! array {
    ($(#[$doc:meta])* $type:ty as $kept:ty) => {
        $(#[$doc])*
        impl sqlx::postgres::PgHasArrayType for $type {
            fn array_type_info() -> sqlx::postgres::PgTypeInfo {
                <$kept as sqlx::postgres::PgHasArrayType>::array_type_info()
            }

            fn array_compatible(found: &sqlx::postgres::PgTypeInfo) -> bool {
                <$kept as sqlx::postgres::PgHasArrayType>::array_compatible(found)
            }
        }
    };
}

#[cfg(feature = "sqlx-0_9-postgres")]
array! {
    /// An array of bytes, `bytea[]`, to write many rows with `unnest($1)`.
    Ciphertext as Vec<u8>
}

#[cfg(feature = "sqlx-0_9-postgres")]
array! {
    /// An array of bytes, `bytea[]`, for `= ANY($1)`.
    BlindIndex as Vec<u8>
}

#[cfg(all(feature = "sqlx-0_9-postgres", feature = "password"))]
array! {
    /// An array of text, `text[]`.
    PasswordHash as String
}

impl IndexTerms {
    /// Appends ` IN (?, ?)` and binds each term, for databases without arrays. Without terms it appends ` IN (NULL)`,
    /// which matches no row.
    ///
    /// ```
    /// # use encx::search::IndexTerms;
    /// # fn find(terms: &IndexTerms) -> sqlx::QueryBuilder<sqlx::Sqlite> {
    /// let mut query = sqlx::QueryBuilder::new("SELECT id, email FROM users WHERE email_index");
    /// terms.push_in(&mut query);
    /// # query
    /// # }
    /// ```
    pub fn push_in<DB: Database>(&self, query: &mut QueryBuilder<DB>)
    where
        BlindIndex: for<'q> Encode<'q, DB> + Type<DB>,
    {
        if self.is_empty() {
            query.push(" IN (NULL)");
            return;
        }
        query.push(" IN (");
        let mut list = query.separated(", ");
        for term in self {
            list.push_bind(*term);
        }
        query.push(")");
    }
}
