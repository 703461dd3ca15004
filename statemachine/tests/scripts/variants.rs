//! The names of all commands, events and refusals, and which of them a script has shown.
//!
//! The names come out of the types themselves: a derived `Deserialize` tells its deserializer which variants there
//! are. So a variant that is added is looked for without anybody listing it.

use onward_statemachine::{Command, Event, Refusal, deployments, machines, objects, services, system};
use serde::de::value::Error;
use serde::de::{DeserializeOwned, Deserializer, Error as _, Visitor};
use serde_json::Value;
use std::collections::BTreeSet;

/// Names as `Kv.Put`.
#[derive(Default)]
pub struct Names {
    pub commands: BTreeSet<String>,
    pub events: BTreeSet<String>,
    pub refusals: BTreeSet<String>,
}

impl Names {
    pub fn extend(&mut self, other: Names) {
        self.commands.extend(other.commands);
        self.events.extend(other.events);
        self.refusals.extend(other.refusals);
    }

    pub fn command(&mut self, command: &Command) {
        if let Command::Batch(commands) = command {
            self.commands.insert("Batch".to_owned());
            commands.iter().for_each(|command| self.command(command));
            return;
        }
        self.commands.insert(name_of(command));
    }

    pub fn event(&mut self, event: &Event) {
        self.events.insert(name_of(event));
    }

    /// Takes note of the refusal, and returns its name.
    pub fn refusal(&mut self, refusal: &Refusal) -> String {
        if let Refusal::Batch { refusal, .. } = refusal {
            self.refusals.insert("Batch".to_owned());
            return format!("Batch of {}", self.refusal(refusal));
        }
        let name = name_of(refusal);
        self.refusals.insert(name.clone());
        name
    }
}

/// The tags of an area's value: `{"Kv": {"Put": ...}}` is `Kv.Put`.
fn name_of<T: serde::Serialize>(value: &T) -> String {
    let value = serde_json::to_value(value).expect("log types are plain values");
    let (area, inner) = tag(&value);
    let (variant, _) = tag(inner.unwrap_or(&Value::Null));
    format!("{area}.{variant}")
}

fn tag(value: &Value) -> (&str, Option<&Value>) {
    match value {
        Value::String(tag) => (tag, None),
        Value::Object(fields) => {
            let (tag, inner) = fields.iter().next().expect("an enum has a tag");
            (tag, Some(inner))
        }
        other => panic!("{other} is no enum"),
    }
}

/// All that there are.
pub fn declared() -> Names {
    let mut names = Names::default();
    let areas = [
        (&mut names.commands, variants::<Command>()),
        (&mut names.events, variants::<Event>()),
        (&mut names.refusals, variants::<Refusal>()),
    ];
    for (set, all) in areas {
        // The bare names of areas give way to those of their variants below; one that is missing there stays, is shown
        // by no script, and so is noticed.
        set.extend(all.iter().map(|name| (*name).to_owned()));
    }
    macro_rules! areas {
        ($($area:ident: $($module:ident)::+;)*) => {$(
            let area = stringify!($area);
            add(&mut names.commands, area, variants::<$($module)::+::Command>());
            add(&mut names.events, area, variants::<$($module)::+::Event>());
            add(&mut names.refusals, area, variants::<$($module)::+::Refusal>());
        )*};
    }
    areas! {
        System: system;
        Kv: services::kv;
        Catalog: services::catalog;
        Registry: machines::registry;
        Ipam: machines::ipam;
        Netboot: machines::netboot;
        Objects: objects;
        Apps: deployments::apps;
        Builds: deployments::builds;
        Releases: deployments::releases;
        Instances: deployments::instances;
    }
    names
}

fn add(names: &mut BTreeSet<String>, area: &str, variants: &[&str]) {
    assert!(
        names.remove(area),
        "{area} is not an area of the enum over all areas"
    );
    names.extend(variants.iter().map(|variant| format!("{area}.{variant}")));
}

/// The variants of an enum.
fn variants<T: DeserializeOwned>() -> &'static [&'static str] {
    let mut seen = Seen(None);
    let _ = T::deserialize(&mut seen);
    seen.0.expect("the type is an enum")
}

/// A deserializer that only listens to what it is asked for.
struct Seen(Option<&'static [&'static str]>);

impl<'de> Deserializer<'de> for &mut Seen {
    type Error = Error;

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        _visitor: V,
    ) -> Result<V::Value, Error> {
        self.0 = Some(variants);
        Err(Error::custom("only the names were wanted"))
    }

    fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, Error> {
        Err(Error::custom("not an enum"))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}
