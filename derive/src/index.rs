//! Blind indexes, after their attributes were checked.

use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote};
use syn::ext::IdentExt;
use syn::{Ident, LitInt, LitStr, Path, Type};

use crate::attributes::{Context, Faults, Normalize, OfIndex};
use crate::types;

pub(crate) struct Index {
    /// Its field in the generated struct.
    pub(crate) ident: Ident,
    /// The column's name in SQL.
    pub(crate) sql: LitStr,
    /// The stem of its methods' names: the field, and the index's own name.
    pub(crate) stem: String,
    pub(crate) context: Option<Context>,
    /// Attributes for its field in the generated struct.
    pub(crate) attrs: Vec<TokenStream>,
    parts: Vec<Part>,
    bits: LitInt,
    name: Option<LitStr>,
    expecting: Option<LitInt>,
    is_unique: bool,
    is_of_small_domain: bool,
}

/// One of its columns.
pub(crate) struct Part {
    pub(crate) column: LitStr,
    pub(crate) normalize: Normalize,
}

const NORMALIZERS: [(&str, &str); 6] = [
    ("case-fold", "CaseFold"),
    ("email", "Email"),
    ("exact", "Exact"),
    ("lowercase", "Lowercase"),
    ("phone", "Phone"),
    ("trim", "Trim"),
];

const MIN_UNIQUE_BITS: u16 = 128;

impl Index {
    /// Checks the index of one field, as far as possible without the type; `None` if something is missing.
    pub(crate) fn read(
        mut read: OfIndex,
        field: &Ident,
        column: &LitStr,
        ty: &Type,
        faults: &mut Faults,
    ) -> Option<Self> {
        check_type(ty, read.span, faults);
        let own = read.name.as_ref().map(|name| own_name(name, faults));
        let stem = |of: &str| match &own {
            Some(own) => format!("{of}_{own}"),
            None => of.to_owned(),
        };
        let normalize = checked(read.normalize.take(), faults);
        let parts = vec![Part {
            column: column.clone(),
            normalize,
        }];
        let sql = format!("{}_index", stem(&column.value()));
        let stem = stem(&field.unraw().to_string());
        Self::of(read, parts, stem, &sql, field.span(), faults)
    }

    /// Checks what all kinds of index have in common; its default column is `sql`.
    pub(crate) fn of(
        read: OfIndex,
        parts: Vec<Part>,
        stem: String,
        sql: &str,
        place: Span,
        faults: &mut Faults,
    ) -> Option<Self> {
        let Some(bits) = read.bits else {
            faults.add(
                read.span,
                "the number of bits is missing; write `bits = 16`: about two less than the logarithm of how many different \
                 values there will be, as `encx::search::IndexField::bits_for` computes; more bits give fewer false matches and hide less",
            );
            return None;
        };
        let value = bits.base10_parse::<u16>().unwrap_or(0);
        if !(8..=256).contains(&value) {
            faults.add(bits.span(), "an index has 8 to 256 bits");
        } else if let Some(span) = read.unique.filter(|_| value < MIN_UNIQUE_BITS) {
            faults.add(
                span,
                "an index of a UNIQUE column has at least 128 bits, so that no two values share a term by chance",
            );
        }
        Some(Self {
            ident: format_ident!("{stem}_index", span = place),
            sql: read.column.unwrap_or_else(|| LitStr::new(sql, read.span)),
            stem,
            context: read.context,
            attrs: read.attrs,
            parts,
            bits,
            name: read.name,
            expecting: read.expecting,
            is_unique: read.unique.is_some(),
            is_of_small_domain: read.small_domain.is_some(),
        })
    }

    /// Returns the name of its constant.
    pub(crate) fn constant(&self) -> Ident {
        format_ident!("INDEX_{}", self.stem.to_uppercase(), span = self.ident.span())
    }

    /// Generates the `IndexField`.
    pub(crate) fn field(&self, krate: &Path, table: &LitStr) -> TokenStream {
        let bits = &self.bits;
        let of = match self.parts.as_slice() {
            [Part { column, normalize }] => {
                let normalizer = normalize.write(krate);
                quote!(#krate::search::IndexField::new(#table, #column, #bits).normalize(#normalizer))
            }
            parts => {
                let parts = parts.iter().map(|Part { column, normalize }| {
                    let normalizer = normalize.write(krate);
                    quote!(#krate::search::IndexPart::new(#column).normalize(#normalizer))
                });
                quote!(#krate::search::IndexField::compound(#table, &[#(#parts),*], #bits))
            }
        };
        let named = self.name.as_ref().map(|name| quote!(.named(#name)));
        let unique = self.is_unique.then(|| quote!(.unique()));
        let small_domain = self.is_of_small_domain.then(|| quote!(.insecure_small_domain()));
        let expecting = self
            .expecting
            .as_ref()
            .map(|distinct| quote!(.expecting(#distinct)));
        quote!(#of #named #unique #small_domain #expecting)
    }
}

impl Normalize {
    fn write(&self, krate: &Path) -> TokenStream {
        match self {
            Self::Own(path) => quote!(#path),
            Self::Named(name) => {
                let name = name.value();
                let known = NORMALIZERS.iter().find(|(known, _)| *known == name);
                let variant = format_ident!("{}", known.map_or("Exact", |(_, variant)| variant));
                quote!(#krate::search::Normalizer::#variant)
            }
        }
    }
}

pub(crate) fn check_type(ty: &Type, place: Span, faults: &mut Faults) {
    if types::is_float(ty) {
        faults.add(
            place,
            "a float is not indexed: a number has several forms, and rounding changes it; index an integer, such \
             as cents",
        );
    }
}

pub(crate) fn checked(normalize: Option<Normalize>, faults: &mut Faults) -> Normalize {
    if let Some(Normalize::Named(name)) = &normalize {
        check_normalizer(name, faults);
    }
    normalize.unwrap_or_else(|| Normalize::Named(LitStr::new("exact", Span::call_site())))
}

fn check_normalizer(name: &LitStr, faults: &mut Faults) {
    let value = name.value();
    if NORMALIZERS.iter().all(|(known, _)| *known != value) {
        let known: Vec<_> = NORMALIZERS
            .iter()
            .map(|(known, _)| format!("\"{known}\""))
            .collect();
        faults.add(
            name.span(),
            format_args!(
                "there is no normaliser \"{value}\"; there are {}, and constants of your own: `normalize = MY_NORMALIZER`",
                known.join(", ")
            ),
        );
    }
}

/// Checks the index's name, which becomes part of methods' names.
pub(crate) fn own_name(name: &LitStr, faults: &mut Faults) -> String {
    let value = name.value();
    if syn::parse_str::<Ident>(&value).is_err() {
        faults.add(
            name.span(),
            "an index's name is made of letters, digits and `_`: methods are named for it",
        );
        return "index".to_owned();
    }
    value
}
