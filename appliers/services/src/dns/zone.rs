//! What each name of the zone holds: a function of the state.

use super::{ANSWERS_MAX, Config, ServeError, ZONE_BYTES_MAX};
use hickory_proto::rr::rdata::{A, AAAA, HINFO, NS, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use onward_statemachine::machines::registry;
use onward_statemachine::services::catalog::{self, Filter, Id, Instance, SERVICE_INSTANCES_MAX};
use onward_statemachine::{Fault, View, system};
use std::collections::BTreeSet;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::net::IpAddr;

/// What secondary servers would go by, in seconds: refresh, retry, expire (RIPE-203).
const SOA_TIMES: (i32, i32, i32) = (86_400, 7200, 3_600_000);

/// What is found at a name.
#[derive(Debug)]
pub(super) enum Answer {
    /// Records of the type asked for.
    Found {
        answers: Vec<Record>,
        additionals: Vec<Record>,
    },
    /// The name exists, and has nothing of the type.
    NoData,
    /// The name does not exist, and so nothing below it does.
    NoName,
}

/// The zone: its own names, and how answers are made.
#[derive(Debug)]
pub(super) struct Zone {
    origin: Name,
    server: Name,
    hostmaster: Name,
    ttl_seconds: u32,
    addresses: Vec<IpAddr>,
}

impl Zone {
    pub(super) fn new(config: &Config) -> Result<Self, ServeError> {
        let error = |reason: String| ServeError::Zone {
            zone: config.zone.clone(),
            reason,
        };
        let mut origin = Name::from_ascii(&config.zone).map_err(|cause| error(cause.to_string()))?;
        origin.set_fqdn(true);
        if origin.is_root() {
            return Err(error("it takes at least one label".to_owned()));
        }
        // One byte for the length of each label, and one for the root.
        let length = origin.iter().map(|label| label.len() + 1).sum::<usize>() + 1;
        if length > ZONE_BYTES_MAX {
            return Err(error(format!(
                "it has {length} bytes; the most is {ZONE_BYTES_MAX}"
            )));
        }
        let origin = origin.to_lowercase();
        Ok(Zone {
            server: below(&origin, &["ns"]),
            hostmaster: below(&origin, &["hostmaster"]),
            origin,
            ttl_seconds: config.ttl_seconds,
            addresses: config.addresses.clone(),
        })
    }

    pub(super) fn set_addresses(&mut self, addresses: Vec<IpAddr>) {
        self.addresses = addresses;
    }

    /// Whether `name` is the zone or below it.
    pub(super) fn contains(&self, name: &Name) -> bool {
        self.origin.zone_of(name)
    }

    /// The start of authority, which goes with every negative answer. Its serial is the revision, modulo 2^32.
    pub(super) fn soa(&self, view: &dyn View) -> Result<Record, Fault> {
        let (refresh, retry, expire) = SOA_TIMES;
        let serial = system::clock(view)?.revision.0 as u32;
        let (server, hostmaster) = (self.server.clone(), self.hostmaster.clone());
        let soa = SOA::new(
            server,
            hostmaster,
            serial,
            refresh,
            retry,
            expire,
            self.ttl_seconds,
        );
        Ok(self.record(&self.origin, RData::SOA(soa)))
    }

    /// What `name`, which the zone contains, holds of type `kind`. `turn` decides the lotteries.
    pub(super) fn lookup(
        &self,
        view: &dyn View,
        name: &Name,
        kind: RecordType,
        turn: u64,
    ) -> Result<Answer, Fault> {
        let depth = name.iter().len() - self.origin.iter().len();
        let lower = name.to_lowercase();
        let mut labels = Vec::with_capacity(depth);
        for label in lower.iter().take(depth) {
            match std::str::from_utf8(label) {
                Ok(label) => labels.push(label),
                Err(_) => return Ok(Answer::NoName),
            }
        }
        let question = Question {
            zone: self,
            view,
            name,
            kind,
            turn,
        };
        let answer = match labels[..] {
            [] => question.apex()?,
            ["ns"] => question.addresses(&self.addresses),
            ["svc" | "node"] => Answer::NoData,
            [service, "svc"] => question.service(service)?,
            ["_tcp", service, "svc"] => match catalog::service(view, service)? {
                Some(_) => Answer::NoData,
                None => Answer::NoName,
            },
            [port, "_tcp", service, "svc"] => question.port(service, port)?,
            [instance, service, "svc"] => question.instance(&Id::new(service, instance))?,
            [serial, "node"] => question.machine(serial)?,
            _ => Answer::NoName,
        };
        match answer {
            Answer::NoData if kind == RecordType::ANY => {
                let hinfo = HINFO::new("RFC8482".to_owned(), String::new());
                Ok(question.found([RData::HINFO(hinfo)]))
            }
            answer => Ok(answer),
        }
    }

    fn record(&self, name: &Name, data: RData) -> Record {
        Record::from_rdata(name.clone(), self.ttl_seconds, data)
    }
}

/// One question on its way through the zone.
struct Question<'a> {
    zone: &'a Zone,
    view: &'a dyn View,
    name: &'a Name,
    kind: RecordType,
    turn: u64,
}

impl Question<'_> {
    fn apex(&self) -> Result<Answer, Fault> {
        Ok(match self.kind {
            RecordType::SOA => Answer::Found {
                answers: vec![self.zone.soa(self.view)?],
                additionals: Vec::new(),
            },
            RecordType::NS => {
                let server = &self.zone.server;
                let records = |data| self.zone.record(server, data);
                Answer::Found {
                    answers: vec![self.zone.record(self.name, RData::NS(NS(server.clone())))],
                    additionals: self
                        .zone
                        .addresses
                        .iter()
                        .copied()
                        .map(address)
                        .map(records)
                        .collect(),
                }
            }
            _ => Answer::NoData,
        })
    }

    fn service(&self, service: &str) -> Result<Answer, Fault> {
        if catalog::service(self.view, service)?.is_none() {
            return Ok(Answer::NoName);
        }
        Ok(match self.kind {
            RecordType::A | RecordType::AAAA => {
                let drawn = self.draw(self.instances(service, true)?);
                let addresses: Vec<_> = drawn.iter().map(|(_, instance)| instance.spec.address).collect();
                self.addresses(&addresses)
            }
            RecordType::SRV => self.servers(self.instances(service, true)?),
            RecordType::TXT => self.texts(&self.instances(service, false)?),
            _ => Answer::NoData,
        })
    }

    /// The port that `label` names by `_name` or `_number`, if one is registered under the service.
    fn port(&self, service: &str, label: &str) -> Result<Answer, Fault> {
        let Some(port) = label.strip_prefix('_') else {
            return Ok(Answer::NoName);
        };
        let mut instances = self.instances(service, false)?;
        instances.retain(|(_, Instance { spec, .. })| {
            spec.port_name.as_deref() == Some(port) || spec.port.to_string() == port
        });
        if instances.is_empty() {
            return Ok(Answer::NoName);
        }
        instances.retain(|(_, instance)| instance.serves());
        Ok(match self.kind {
            RecordType::SRV => self.servers(instances),
            _ => Answer::NoData,
        })
    }

    fn instance(&self, id: &Id) -> Result<Answer, Fault> {
        let Some(instance) = catalog::get(self.view, id)? else {
            return Ok(Answer::NoName);
        };
        Ok(match self.kind {
            RecordType::A | RecordType::AAAA if instance.serves() => self.addresses(&[instance.spec.address]),
            RecordType::TXT => self.texts(&[(id.clone(), instance)]),
            _ => Answer::NoData,
        })
    }

    fn machine(&self, name: &str) -> Result<Answer, Fault> {
        let Some(machine) = registry::by_name(self.view, name)? else {
            return Ok(Answer::NoName);
        };
        let addresses: Vec<_> = machine.addresses.iter().map(|own| own.ip.into()).collect();
        Ok(self.addresses(&addresses))
    }

    /// The instances of a service, bounded by how many one can have.
    fn instances(&self, service: &str, serving: bool) -> Result<Vec<(Id, Instance)>, Fault> {
        let filter = Filter {
            serving,
            ..Filter::default()
        };
        let page = catalog::instances(self.view, service, &filter, None, SERVICE_INSTANCES_MAX)?;
        Ok(page.instances)
    }

    /// Orders instances by priority, and within one by a lottery in which each has its weight in tickets (Efraimidis
    /// and Spirakis, "Weighted random sampling with a reservoir", 2006). Those without weight come last.
    fn draw(&self, instances: Vec<(Id, Instance)>) -> Vec<(Id, Instance)> {
        let hasher = BuildHasherDefault::<DefaultHasher>::default();
        let mut drawn: Vec<_> = instances
            .into_iter()
            .map(|(id, instance)| {
                let uniform = ((hasher.hash_one((self.turn, &id)) >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
                let rank = -uniform.ln() / f64::from(instance.spec.weight);
                (instance.spec.priority, rank, id, instance)
            })
            .collect();
        drawn.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
        drawn
            .into_iter()
            .map(|(_, _, id, instance)| (id, instance))
            .collect()
    }

    fn servers(&self, instances: Vec<(Id, Instance)>) -> Answer {
        let mut drawn = self.draw(instances);
        drawn.truncate(ANSWERS_MAX);
        let mut records = Vec::new();
        let mut additionals = Vec::new();
        for (id, Instance { spec, .. }) in drawn {
            let target = below(&self.zone.origin, &[&id.instance, &id.service, "svc"]);
            additionals.push(self.zone.record(&target, address(spec.address)));
            records.push(RData::SRV(SRV::new(
                spec.priority,
                spec.weight,
                spec.port,
                target,
            )));
        }
        match self.found(records) {
            Answer::Found { answers, .. } => Answer::Found { answers, additionals },
            nothing => nothing,
        }
    }

    fn addresses(&self, addresses: &[IpAddr]) -> Answer {
        let mut seen = BTreeSet::new();
        let data = addresses
            .iter()
            .copied()
            .filter(|ip| seen.insert(*ip))
            .map(address);
        self.found(data.filter(|data| data.record_type() == self.kind))
    }

    fn texts(&self, instances: &[(Id, Instance)]) -> Answer {
        if self.kind != RecordType::TXT {
            return Answer::NoData;
        }
        let texts: BTreeSet<_> = instances.iter().map(|(_, instance)| text(instance)).collect();
        self.found(texts.into_iter().map(|strings| RData::TXT(TXT::new(strings))))
    }

    /// Records at the name that was asked for, in the case that it was asked in.
    fn found(&self, data: impl IntoIterator<Item = RData>) -> Answer {
        let records = data
            .into_iter()
            .take(ANSWERS_MAX)
            .map(|data| self.zone.record(self.name, data));
        let answers: Vec<_> = records.collect();
        if answers.is_empty() {
            return Answer::NoData;
        }
        Answer::Found {
            answers,
            additionals: Vec::new(),
        }
    }
}

fn address(address: IpAddr) -> RData {
    match address {
        IpAddr::V4(address) => RData::A(A(address)),
        IpAddr::V6(address) => RData::AAAA(AAAA(address)),
    }
}

/// The strings of an instance's TXT record. There is at least one, if only an empty one (RFC 6763 section 6.1).
fn text(instance: &Instance) -> Vec<String> {
    let tags = instance.spec.tags.iter().cloned();
    let metadata = instance
        .spec
        .metadata
        .iter()
        .map(|(key, value)| format!("{key}={value}"));
    let mut strings: Vec<_> = tags
        .chain(metadata)
        .filter(|string| string.len() <= u8::MAX.into())
        .collect();
    if strings.is_empty() {
        strings.push(String::new());
    }
    strings
}

/// The name of `labels` below `origin`.
fn below(origin: &Name, labels: &[&str]) -> Name {
    let name = Name::from_labels(labels.iter().map(|label| label.as_bytes()));
    name.and_then(|name| name.append_domain(origin))
        .expect("labels have at most 63 bytes, and the zone leaves room for them")
}
