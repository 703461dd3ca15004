//! Query parameters: one declaration says how they are read, which are known, and what the documentation prints.

use crate::app::{LIST_LIMIT_DEFAULT, LIST_LIMIT_MAX};
use crate::problem::{Problem, QUERY_INVALID};
use crate::request::{Fresh, Present};
use onward_statemachine::Revision;
use percent_encoding::percent_decode_str;
use std::str::FromStr;

/// A documented query parameter.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Param {
    pub name: &'static str,
    pub about: &'static str,
    /// A type of JSON schema.
    pub kind: &'static str,
    pub required: bool,
}

/// The query parameters of a route.
pub(crate) trait Query: Sized + Send {
    /// All that are known.
    fn documented() -> Vec<Param>;
    /// Takes them out of the request.
    fn take(pairs: &mut Pairs) -> Result<Self, Problem>;
}

/// What a field of a [`Query`] is read from: one parameter mostly.
pub(crate) trait Field: Sized + Send {
    fn documented(name: &'static str, about: &'static str) -> Vec<Param>;
    fn take(name: &'static str, pairs: &mut Pairs) -> Result<Self, Problem>;
}

/// Declares the query parameters of a route.
macro_rules! query {
    ($(#[$about:meta])* $name:ident { $(#[doc = $doc:literal] $field:ident: $type:ty,)* }) => {
        $(#[$about])*
        #[derive(Debug, Clone)]
        pub(crate) struct $name { $(#[doc = $doc] pub(crate) $field: $type,)* }
        impl $crate::params::Query for $name {
            fn documented() -> Vec<$crate::params::Param> {
                [$(<$type as $crate::params::Field>::documented(stringify!($field), $doc.trim_ascii())),*].concat()
            }
            fn take(pairs: &mut $crate::params::Pairs) -> Result<Self, $crate::problem::Problem> {
                Ok($name { $($field: $crate::params::Field::take(stringify!($field), pairs)?,)* })
            }
        }
    };
}
pub(crate) use query;

/// The decoded pairs of a query string that nobody took yet.
#[derive(Debug, Default)]
pub(crate) struct Pairs(Vec<(String, Vec<u8>)>);

impl Pairs {
    pub(crate) fn parse(query: &str) -> Result<Self, Problem> {
        let mut pairs = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = String::from_utf8_lossy(&decode(name)).into_owned();
            pairs.push((name, decode(value)));
        }
        Ok(Pairs(pairs))
    }

    fn take(&mut self, name: &str) -> Result<Option<Vec<u8>>, Problem> {
        let mut values = self.take_all(name);
        match values.len() {
            0 | 1 => Ok(values.pop()),
            _ => Err(QUERY_INVALID.because(format!("query parameter `{name}` is there more than once"))),
        }
    }

    fn take_all(&mut self, name: &str) -> Vec<Vec<u8>> {
        let taken = self.0.extract_if(.., |(known, _)| known == name);
        taken.map(|(_, value)| value).collect()
    }

    /// Whatever is left is unknown.
    pub(crate) fn finish<Q: Query>(self) -> Result<(), Problem> {
        let Some((name, _)) = self.0.first() else {
            return Ok(());
        };
        let known: Vec<_> = Q::documented()
            .iter()
            .map(|param| format!("`{}`", param.name))
            .collect();
        let known = match known.is_empty() {
            true => "takes none".to_owned(),
            false => format!("knows {}", known.join(", ")),
        };
        Err(QUERY_INVALID.because(format!("query parameter `{name}` is unknown; this route {known}")))
    }
}

fn decode(text: &str) -> Vec<u8> {
    percent_decode_str(&text.replace('+', " ")).collect()
}

fn text(name: &str, value: Vec<u8>) -> Result<String, Problem> {
    String::from_utf8(value)
        .map_err(|_| QUERY_INVALID.because(format!("query parameter `{name}` is not UTF-8")))
}

fn parse<T: FromStr>(name: &str, value: Vec<u8>, expected: &str) -> Result<T, Problem> {
    let value = text(name, value)?;
    value.parse().map_err(|_| {
        QUERY_INVALID.because(format!(
            "query parameter `{name}` is `{value}`; it takes {expected}"
        ))
    })
}

/// A value of one parameter.
pub(crate) trait Scalar: Sized + Send {
    const KIND: &'static str;
    fn scalar(name: &str, value: Vec<u8>) -> Result<Self, Problem>;
}

impl Scalar for String {
    const KIND: &'static str = "string";
    fn scalar(name: &str, value: Vec<u8>) -> Result<Self, Problem> {
        text(name, value)
    }
}

impl Scalar for Vec<u8> {
    const KIND: &'static str = "string";
    fn scalar(_name: &str, value: Vec<u8>) -> Result<Self, Problem> {
        Ok(value)
    }
}

impl Scalar for u64 {
    const KIND: &'static str = "integer";
    fn scalar(name: &str, value: Vec<u8>) -> Result<Self, Problem> {
        parse(name, value, "a whole number")
    }
}

impl Scalar for Revision {
    const KIND: &'static str = "integer";
    fn scalar(name: &str, value: Vec<u8>) -> Result<Self, Problem> {
        parse(name, value, "a revision, which is a whole number").map(Revision)
    }
}

impl Scalar for bool {
    const KIND: &'static str = "boolean";
    fn scalar(name: &str, value: Vec<u8>) -> Result<Self, Problem> {
        // `?serving` alone says yes.
        if value.is_empty() {
            return Ok(true);
        }
        parse(name, value, "`true` or `false`")
    }
}

fn param<T: Scalar>(name: &'static str, about: &'static str, required: bool) -> Vec<Param> {
    let kind = T::KIND;
    vec![Param {
        name,
        about,
        kind,
        required,
    }]
}

impl<T: Scalar> Field for Option<T> {
    fn documented(name: &'static str, about: &'static str) -> Vec<Param> {
        param::<T>(name, about, false)
    }
    fn take(name: &'static str, pairs: &mut Pairs) -> Result<Self, Problem> {
        pairs.take(name)?.map(|value| T::scalar(name, value)).transpose()
    }
}

/// A parameter that may be there several times.
#[derive(Debug, Clone)]
pub(crate) struct Many<T>(pub Vec<T>);

impl<T: Scalar> Field for Many<T> {
    fn documented(name: &'static str, about: &'static str) -> Vec<Param> {
        param::<T>(name, about, false)
    }
    fn take(name: &'static str, pairs: &mut Pairs) -> Result<Self, Problem> {
        let values = pairs.take_all(name).into_iter();
        values
            .map(|value| T::scalar(name, value))
            .collect::<Result<_, _>>()
            .map(Many)
    }
}

impl Field for Fresh {
    fn documented(name: &'static str, about: &'static str) -> Vec<Param> {
        let at = "as of this revision; as it is now without it";
        [
            Present::documented(name, about),
            param::<Revision>("at", at, false),
        ]
        .concat()
    }
    fn take(name: &'static str, pairs: &mut Pairs) -> Result<Self, Problem> {
        let Present(fresh) = Field::take(name, pairs)?;
        let at = Field::take("at", pairs)?;
        Ok(Fresh { at, ..fresh })
    }
}

impl Field for Present {
    fn documented(_name: &'static str, _about: &'static str) -> Vec<Param> {
        let consistency = "`linearizable` (the default) sees every acknowledged write; `local` answers from this node's \
                           replica at once, with its age in `age_ms`";
        let at_least = "wait until this node has applied at least this revision";
        [
            param::<String>("consistency", consistency, false),
            param::<Revision>("at_least", at_least, false),
        ]
        .concat()
    }
    fn take(_name: &'static str, pairs: &mut Pairs) -> Result<Self, Problem> {
        let at_least: Option<Revision> = Field::take("at_least", pairs)?;
        let consistency: Option<String> = Field::take("consistency", pairs)?;
        let local = match consistency.as_deref() {
            None | Some("linearizable") => false,
            Some("local") => true,
            Some(other) => {
                return Err(QUERY_INVALID.because(format!(
                    "query parameter `consistency` is `{other}`; it takes `linearizable` or `local`"
                )));
            }
        };
        if at_least.is_some() && consistency.is_some() {
            return Err(
                QUERY_INVALID.because("query parameters `at_least` and `consistency` exclude each other")
            );
        }
        let at = None;
        Ok(Present(Fresh { local, at_least, at }))
    }
}

/// Which page of a list: `limit` and `cursor`.
#[derive(Debug, Clone)]
pub(crate) struct Page {
    pub limit: usize,
    pub cursor: Option<String>,
}

impl Field for Page {
    fn documented(_name: &'static str, _about: &'static str) -> Vec<Param> {
        [
            param::<u64>(
                "limit",
                "the most items of the answer: 1 to 5000, 500 if not said",
                false,
            ),
            param::<String>("cursor", "go on where the answer with this `next` ended", false),
        ]
        .concat()
    }
    fn take(_name: &'static str, pairs: &mut Pairs) -> Result<Self, Problem> {
        let limit: Option<u64> = Field::take("limit", pairs)?;
        let limit = limit.unwrap_or(LIST_LIMIT_DEFAULT as u64);
        if !(1..=LIST_LIMIT_MAX as u64).contains(&limit) {
            return Err(QUERY_INVALID.because(format!(
                "query parameter `limit` is {limit}; it takes 1 to {LIST_LIMIT_MAX}"
            )));
        }
        Ok(Page {
            limit: limit as usize,
            cursor: Field::take("cursor", pairs)?,
        })
    }
}

query! {
    /// A read of one thing.
    Read {
        /// How fresh.
        fresh: Fresh,
    }
}
query! {
    /// A read of what has no past.
    Now {
        /// How fresh.
        fresh: Present,
    }
}
query! {
    /// A list.
    List {
        /// How fresh.
        fresh: Fresh,
        /// Which page.
        page: Page,
    }
}

/// No parameters: of a look at the node that is asked, as it is. One that is there is refused, and not overlooked.
#[derive(Debug, Clone)]
pub(crate) struct Nothing;

impl Query for Nothing {
    fn documented() -> Vec<Param> {
        Vec::new()
    }
    fn take(_pairs: &mut Pairs) -> Result<Self, Problem> {
        Ok(Nothing)
    }
}
