//! The contents of `#[encx(..)]`, as written. Parsing continues after a fault, so that all faults are reported at once.

mod index;
mod parts;

use proc_macro2::{Span, TokenStream};
use syn::meta::ParseNestedMeta;
use syn::spanned::Spanned;
use syn::{Attribute, Ident, LitStr, Path, Visibility};

pub(crate) use index::{Normalize, OfIndex, OfPart};
use parts::{
    Bind, bind, context, each, inner, list, list_of_attributes, name, nested, once, parsed, text, unknown,
};
pub(crate) use parts::{Context, Faults, Pair, PairValue};

/// The attributes of a struct.
#[derive(Default)]
pub(crate) struct OfStruct {
    /// Indexes over several fields.
    pub(crate) indexes: Vec<OfIndex>,
    pub(crate) table: Option<LitStr>,
    pub(crate) sql_table: Option<LitStr>,
    pub(crate) context: Option<Context>,
    pub(crate) fragment: Option<Span>,
    pub(crate) krate: Option<Path>,
    pub(crate) name: Option<Ident>,
    pub(crate) vis: Option<Visibility>,
    pub(crate) derives: Option<Vec<Path>>,
    pub(crate) attrs: Vec<TokenStream>,
}

/// The attributes of a field.
#[derive(Default)]
pub(crate) struct OfField {
    pub(crate) indexes: Vec<OfIndex>,
    pub(crate) password: Option<Span>,
    pub(crate) password_context: Option<Context>,
    pub(crate) id: Option<Span>,
    pub(crate) id_kind: Option<LitStr>,
    pub(crate) encrypt: Option<Span>,
    pub(crate) json: Option<Span>,
    pub(crate) nested: Option<Span>,
    pub(crate) nested_prefix: Option<LitStr>,
    pub(crate) token: Option<Span>,
    pub(crate) bind: Option<Bind>,
    pub(crate) rename: Option<LitStr>,
    pub(crate) sql_column: Option<LitStr>,
    pub(crate) attrs: Vec<TokenStream>,
}

const STRUCT_KEYS: &str = "`table`, `sql_table`, `context`, `encrypted`, `index`, `fragment`, `crate`";
const ENCRYPTED_KEYS: &str = "`name`, `vis`, `derive`, `attr`";
const FIELD_KEYS: &str =
    "`id`, `encrypt`, `index`, `json`, `nested`, `password`, `token`, `bind`, `rename`, `sql_column`, `attr`";

impl OfStruct {
    pub(crate) fn read(attrs: &[Attribute], faults: &mut Faults) -> Self {
        let mut read = Self::default();
        each(attrs, faults, |meta, faults| {
            let span = meta.path.span();
            match name(meta).as_str() {
                "table" => once(&mut read.table, text(meta, faults)?, span, faults),
                "sql_table" => once(&mut read.sql_table, text(meta, faults)?, span, faults),
                "context" => once(&mut read.context, context(meta, faults)?, span, faults),
                "fragment" => once(&mut read.fragment, span, span, faults),
                "crate" => {
                    let path = parsed(meta, "write the path of `encx`: `crate = \"my_reexport::encx\"`")?;
                    once(&mut read.krate, path, span, faults);
                }
                "encrypted" => nested(meta, faults, |meta, faults| read.encrypted(meta, faults))?,
                "index" => read.indexes.push(OfIndex::of_struct(meta, faults)?),
                _ => unknown(meta, "a struct", STRUCT_KEYS, faults)?,
            }
            Ok(())
        });
        read
    }

    fn encrypted(&mut self, meta: &ParseNestedMeta<'_>, faults: &mut Faults) -> syn::Result<()> {
        let span = meta.path.span();
        match name(meta).as_str() {
            "name" => {
                let name = parsed(meta, "write the name of a struct: `name = \"UserRow\"`")?;
                once(&mut self.name, name, span, faults);
            }
            "vis" => {
                let vis = parsed(
                    meta,
                    "write a visibility: `vis = \"pub(crate)\"`, or `vis = \"pub(self)\"` for none",
                )?;
                once(&mut self.vis, vis, span, faults);
            }
            "derive" => once(&mut self.derives, list(meta)?, span, faults),
            "attr" => self.attrs.extend(list_of_attributes(meta)?),
            _ => unknown(meta, "`encrypted(..)`", ENCRYPTED_KEYS, faults)?,
        }
        Ok(())
    }
}

impl OfField {
    pub(crate) fn read(attrs: &[Attribute], faults: &mut Faults) -> Self {
        let mut read = Self::default();
        each(attrs, faults, |meta, faults| {
            let span = meta.path.span();
            match name(meta).as_str() {
                "id" => {
                    once(&mut read.id, span, span, faults);
                    inner(meta, faults, |meta, faults| match name(meta).as_str() {
                        "kind" => {
                            once(&mut read.id_kind, text(meta, faults)?, span, faults);
                            Ok(())
                        }
                        _ => unknown(meta, "`id(..)`", "`kind`", faults),
                    })?;
                }
                "encrypt" => once(&mut read.encrypt, span, span, faults),
                "json" => once(&mut read.json, span, span, faults),
                "nested" => {
                    once(&mut read.nested, span, span, faults);
                    inner(meta, faults, |meta, faults| match name(meta).as_str() {
                        "prefix" => {
                            once(&mut read.nested_prefix, text(meta, faults)?, span, faults);
                            Ok(())
                        }
                        _ => unknown(meta, "`nested(..)`", "`prefix`", faults),
                    })?;
                }
                "index" => read.indexes.push(OfIndex::of_field(meta, faults)?),
                "password" => {
                    once(&mut read.password, span, span, faults);
                    inner(meta, faults, |meta, faults| match name(meta).as_str() {
                        "context" => {
                            once(&mut read.password_context, context(meta, faults)?, span, faults);
                            Ok(())
                        }
                        _ => unknown(meta, "`password(..)`", "`context`", faults),
                    })?;
                }
                "token" => once(&mut read.token, span, span, faults),
                "bind" => once(&mut read.bind, bind(meta)?, span, faults),
                "rename" => once(&mut read.rename, text(meta, faults)?, span, faults),
                "sql_column" => once(&mut read.sql_column, text(meta, faults)?, span, faults),
                "attr" => read.attrs.extend(list_of_attributes(meta)?),
                _ => unknown(meta, "a field", FIELD_KEYS, faults)?,
            }
            Ok(())
        });
        read
    }
}
