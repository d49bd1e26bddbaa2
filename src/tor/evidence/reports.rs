//! What tor-hsclient reports of an attempt, for tests: the same spans, the same texts, the same errors.
//!
//! That they are still the same, the tests in [`super::super::upstream_tests`] look up in its source.

use std::sync::Arc;

use tor_cell::relaycell::hs::IntroduceAckStatus;
use tor_dirclient::RequestError;
use tor_hsclient::{DescriptorErrorDetail, FailedAttemptError};
use tracing::{debug, trace_span};
use tracing_subscriber::prelude::*;

use super::{ATTEMPT, Bound, Evidence, layer};

/// One report.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "there are few, in tests")]
pub(crate) enum Report {
    LooksForDescriptor,
    AsksDirectory,
    NotFound,
    Directory(Box<DescriptorErrorDetail>),
    EstablishesRendezvous,
    /// Numbered from zero, as everywhere in the program; the messages count from one.
    TurnsToPoint(usize),
    Solves,
    Introduces(usize),
    Acknowledged(usize),
    Refused(usize),
    TimedOut(usize),
}

/// Has the task that does an attempt's work report these.
pub(crate) fn report(evidence: &Arc<Evidence>, reports: impl IntoIterator<Item = Report>) {
    let subscriber = tracing_subscriber::registry().with(layer());
    let working = Bound::Working(Arc::clone(evidence));
    tracing::subscriber::with_default(subscriber, || {
        ATTEMPT.sync_scope(working, || reports.into_iter().for_each(emit));
    });
}

/// An attempt of which this is known.
pub(crate) fn evidence(reports: impl IntoIterator<Item = Report>) -> Arc<Evidence> {
    let evidence = Evidence::new(None);
    report(&evidence, reports);
    evidence
}

/// Reports from wherever this is called.
pub(super) fn emit(report: Report) {
    macro_rules! span {
        ($name:literal) => {
            drop(trace_span!(target: "tor_hsclient::connect", $name))
        };
    }
    macro_rules! event {
        ($($arg:tt)*) => {
            debug!(target: "tor_hsclient::connect", $($arg)*)
        };
    }
    macro_rules! failed {
        ($error:expr) => {
            event!(error = &$error as &dyn std::error::Error, "attempt failed")
        };
    }
    // As `IntroPtIndex` shows it, which has no name outside of its crate.
    let place = |point: usize| format!("#{}", point + 1);
    match report {
        Report::LooksForDescriptor => span!("descriptor_ensure"),
        Report::AsksDirectory => span!("descriptor_fetch_attempt"),
        Report::NotFound => {
            let error = RequestError::HttpStatus(404, "Not found".to_owned());
            failed!(DescriptorErrorDetail::Directory(error));
        }
        Report::Directory(error) => failed!(*error),
        Report::EstablishesRendezvous => span!("establish_rendezvous"),
        Report::TurnsToPoint(point) => {
            let point = place(point);
            event!("hs conn to {}: IPT {}: obtaining intro circuit", "…", point);
        }
        Report::Solves => {
            debug!(target: "tor_hsclient::pow::v1", "beginning solve, {:?}", 3);
        }
        Report::Introduces(point) => {
            span!("exchange_introduce");
            let point = place(point);
            event!(
                "hs conn to {}: RPT {} IPT {}: making introduction",
                "…",
                "…",
                point
            );
        }
        Report::Acknowledged(point) => {
            let point = place(point);
            event!(
                "hs conn to {}: RPT {} IPT {}: awaiting rendezvous completion",
                "…",
                "…",
                point
            );
        }
        Report::Refused(point) => failed!(FailedAttemptError::IntroductionFailed {
            status: IntroduceAckStatus::NOT_RECOGNIZED,
            intro_index: point.into(),
        }),
        Report::TimedOut(point) => failed!(FailedAttemptError::IntroductionTimeout {
            intro_index: point.into(),
        }),
    }
}
