use super::CallStage as S;
use super::FetchError as F;
use super::RendezvousError as R;
use super::*;

#[test]
fn a_failed_second_fetch_does_not_hide_introduction_errors() {
    let mut observations = Observations::after(None);
    let unreachable = Failure::DirectoriesUnreachable;
    assert_eq!(
        observations.combine_with_rendezvous_errors(unreachable),
        unreachable
    );
    observations.rendezvous_errors = vec![R::NoRendezvousCircuit];
    assert_eq!(
        observations.combine_with_rendezvous_errors(unreachable),
        unreachable
    );
    observations.rendezvous_errors.push(R::IntroductionTimedOut);
    let timed_out = Failure::IntroductionTimedOut;
    assert_eq!(
        observations.combine_with_rendezvous_errors(unreachable),
        timed_out
    );
    let not_found = Failure::DescriptorNotFound;
    assert_eq!(
        observations.combine_with_rendezvous_errors(not_found),
        not_found
    );
}

#[test]
fn fetch_errors_are_classified_as_a_set() {
    let cases: &[(&[F], Failure)] = &[
        (&[F::NotFound; 6], Failure::DescriptorNotFound),
        (
            &[F::TimedOut, F::NotFound, F::Unreachable],
            Failure::DescriptorNotFound,
        ),
        (&[F::Refused, F::NotFound], Failure::DescriptorNotFound),
        (&[F::NotFound, F::Refused], Failure::DescriptorNotFound),
        (&[F::Invalid; 6], Failure::DescriptorInvalid),
        (&[F::NotFound, F::Invalid], Failure::DescriptorInvalid),
        (&[F::NotFound, F::AuthMissing], Failure::ClientAuthMissing),
        (&[F::AuthMissing, F::AuthWrong], Failure::ClientAuthWrong),
        (&[F::NoIntroductionPoints], Failure::IntroductionFailed),
        (&[F::TimedOut; 3], Failure::DirectoriesTimedOut),
        (
            &[F::TimedOut, F::Unreachable],
            Failure::DirectoriesUnreachable,
        ),
        (&[F::Refused; 2], Failure::DirectoriesUnreachable),
        (&[F::ClockSkewed, F::Unreachable], Failure::ClockSkewed),
        (&[F::Bug], Failure::Internal),
        (&[], Failure::DirectoriesUnreachable),
    ];
    for (errors, expected) in cases {
        assert_eq!(classify_fetch_errors(errors), *expected, "{errors:?}");
    }
}

#[test]
fn the_furthest_step_decides() {
    let refused = R::IntroductionRefused { point: 0 };
    let timed_out = R::IntroductionTimedOut;
    let broken = R::IntroductionBroken;
    let cases: &[(&[R], Failure)] = &[
        (&[refused; 3], Failure::IntroductionFailed),
        (&[timed_out, timed_out], Failure::IntroductionTimedOut),
        (&[timed_out, broken], Failure::IntroductionFailed),
        (&[timed_out, refused], Failure::IntroductionFailed),
        (
            &[refused, R::NotCompleted, timed_out],
            Failure::RendezvousFailed,
        ),
        (
            &[R::NotEstablished, R::NoRendezvousCircuit],
            Failure::RendezvousFailed,
        ),
        (
            &[R::NotEstablished, timed_out],
            Failure::IntroductionTimedOut,
        ),
        (&[R::NoRendezvousCircuit], Failure::NoCircuit),
        (&[R::IntroductionPointUnusable], Failure::IntroductionFailed),
        (
            &[R::IntroductionPointUnusable, timed_out],
            Failure::IntroductionFailed,
        ),
        (&[R::Bug], Failure::Internal),
        (&[R::Bug, refused], Failure::IntroductionFailed),
    ];
    for (errors, expected) in cases {
        assert_eq!(classify_rendezvous_errors(errors), *expected, "{errors:?}");
    }
}

#[test]
fn the_more_informative_of_two_failures_wins() {
    // From the most to the least informative; the failures of one row are equal.
    let order: &[&[Failure]] = &[
        &[Failure::ClientAuthWrong, Failure::ClientAuthMissing],
        &[Failure::DescriptorNotFound],
        &[Failure::RendezvousFailed],
        &[Failure::IntroductionFailed],
        &[Failure::IntroductionTimedOut],
        &[Failure::DescriptorInvalid],
        &[Failure::ClockSkewed],
        &[
            Failure::DirectoriesUnreachable,
            Failure::DirectoriesTimedOut,
        ],
        &[Failure::NoCircuit, Failure::Internal],
    ];
    for (rank, equals) in order.iter().enumerate() {
        for one in *equals {
            for other in order[rank + 1..].iter().copied().flatten() {
                assert_eq!(more_informative(*one, *other), *one);
                assert_eq!(more_informative(*other, *one), *one);
            }
            for equal in *equals {
                assert_eq!(more_informative(*one, *equal), *one, "the first is kept");
            }
        }
    }
}

#[test]
fn a_call_that_was_acknowledged_outweighs_the_earlier_call() {
    let mut observations = Observations::after(Some(Failure::DescriptorNotFound));
    observations.enter(S::Acknowledged);
    assert_eq!(observations.failure_so_far(), Failure::RendezvousFailed);
}

#[test]
fn at_the_deadline_the_current_stage_decides() {
    let at = |stage| {
        let mut observations = Observations::default();
        observations.enter(stage);
        observations.failure_so_far()
    };
    assert_eq!(at(S::NotStarted), Failure::DirectoriesTimedOut);
    assert_eq!(at(S::Fetching), Failure::DirectoriesTimedOut);
    assert_eq!(at(S::Rendezvous), Failure::IntroductionTimedOut);
    assert_eq!(at(S::Puzzle), Failure::IntroductionTimedOut);
    assert_eq!(at(S::Introduction), Failure::IntroductionTimedOut);
    assert_eq!(at(S::Acknowledged), Failure::RendezvousFailed);
}

#[test]
fn at_the_deadline_earlier_errors_still_count() {
    let mut observations = Observations::default();
    observations.enter(S::Introduction);
    observations.record_rendezvous_error(R::IntroductionRefused { point: 0 });
    assert_eq!(observations.failure_so_far(), Failure::IntroductionFailed);
    observations.enter(S::Acknowledged);
    assert_eq!(observations.failure_so_far(), Failure::RendezvousFailed);
    observations.record_rendezvous_error(R::NotCompleted);
    observations.enter(S::Fetching);
    assert_eq!(observations.failure_so_far(), Failure::RendezvousFailed);
}

#[test]
fn a_second_call_that_gets_less_far_hides_nothing() {
    let mut observations = Observations::after(Some(Failure::IntroductionFailed));
    observations.enter(S::Fetching);
    assert_eq!(observations.failure_so_far(), Failure::IntroductionFailed);
    let unreachable = observations.combine_with_earlier(Failure::DirectoriesUnreachable);
    assert_eq!(unreachable, Failure::IntroductionFailed);
    // An answer of the directories is newer, and counts.
    let gone = observations.combine_with_earlier(Failure::DescriptorNotFound);
    assert_eq!(gone, Failure::DescriptorNotFound);
    for stage in [S::Rendezvous, S::Introduction] {
        observations.enter(stage);
        assert_eq!(observations.failure_so_far(), Failure::IntroductionFailed);
    }
    let mut further = observations.clone();
    further.enter(S::Acknowledged);
    assert_eq!(further.failure_so_far(), Failure::RendezvousFailed);
    // The points of the new descriptor do not answer.
    observations.record_rendezvous_error(R::IntroductionTimedOut);
    assert_eq!(observations.failure_so_far(), Failure::IntroductionTimedOut);
}

#[test]
fn missing_rendezvous_circuits_do_not_blame_introduction_points() {
    let mut observations = Observations::default();
    observations.record_rendezvous_error(R::NoRendezvousCircuit);
    observations.enter(S::Rendezvous);
    assert_eq!(observations.failure_so_far(), Failure::NoCircuit);
    // Rendezvous points that do not answer do not blame an introduction point either.
    observations.rendezvous_errors = vec![R::NotEstablished];
    assert_eq!(observations.failure_so_far(), Failure::RendezvousFailed);
    // The earlier answers of introduction points are more informative.
    for earlier in [Failure::IntroductionFailed, Failure::IntroductionTimedOut] {
        observations.earlier_failure = Some(earlier);
        assert_eq!(observations.failure_so_far(), earlier);
    }
}

#[test]
fn directories_that_were_not_tried_mean_that_the_client_is_unready() {
    let mut observations = Observations::default();
    assert!(!observations.is_client_unready());
    observations.fetch_errors = vec![F::NotReady; 6];
    assert!(observations.is_client_unready());
    assert_eq!(
        classify_fetch_errors(&[F::NotReady]),
        Failure::DirectoriesUnreachable
    );
    observations.fetch_errors.push(F::TimedOut);
    assert!(!observations.is_client_unready());
}

#[test]
fn one_undecryptable_descriptor_is_proof() {
    let mut observations = Observations::default();
    observations.fetch_errors.push(F::NotFound);
    assert_eq!(observations.proven_failure(), None);
    observations.fetch_errors.push(F::AuthMissing);
    assert_eq!(
        observations.proven_failure(),
        Some(Failure::ClientAuthMissing)
    );
}

#[test]
fn a_second_refusal_of_the_first_point_proves_the_failure() {
    let mut observations = Observations::default();
    for point in [2, 0, 1] {
        observations.record_rendezvous_error(R::IntroductionRefused { point });
        assert_eq!(observations.proven_failure(), None);
    }
    observations.record_rendezvous_error(R::IntroductionRefused { point: 2 });
    assert_eq!(
        observations.proven_failure(),
        Some(Failure::IntroductionFailed)
    );
}

#[test]
fn selecting_the_first_refusing_point_again_proves_the_failure() {
    let mut observations = Observations::default();
    for point in [2, 0, 1] {
        observations.select_point(point);
        assert_eq!(observations.proven_failure(), None);
        observations.record_rendezvous_error(R::IntroductionRefused { point });
    }
    observations.select_point(2);
    assert_eq!(
        observations.proven_failure(),
        Some(Failure::IntroductionFailed)
    );
}

#[test]
fn refusals_count_only_for_the_descriptor_that_lists_the_points() {
    let mut observations = Observations::default();
    observations.enter(S::Descriptor);
    for point in [0, 1] {
        observations.select_point(point);
        observations.record_rendezvous_error(R::IntroductionRefused { point });
    }
    observations.enter(S::Descriptor);
    observations.select_point(0);
    assert_eq!(observations.proven_failure(), None);
    observations.record_rendezvous_error(R::IntroductionRefused { point: 0 });
    assert_eq!(observations.proven_failure(), None);
    observations.select_point(0);
    assert_eq!(
        observations.proven_failure(),
        Some(Failure::IntroductionFailed)
    );
}

#[test]
fn all_tries_may_be_refused_before_every_point_was_tried() {
    let mut observations = Observations::default();
    for points in [0..6, 6..12] {
        observations.enter(S::Descriptor);
        assert!(!observations.has_only_refusals());
        for point in points {
            observations.select_point(point);
            observations.record_rendezvous_error(R::IntroductionRefused { point });
            assert_eq!(observations.proven_failure(), None);
            assert!(observations.has_only_refusals());
        }
    }
    observations.record_rendezvous_error(R::IntroductionTimedOut);
    assert!(!observations.has_only_refusals());
}

#[test]
fn selecting_a_point_again_after_another_error_proves_nothing() {
    let mut observations = Observations::default();
    observations.record_rendezvous_error(R::IntroductionRefused { point: 0 });
    observations.record_rendezvous_error(R::IntroductionBroken);
    observations.select_point(0);
    assert_eq!(observations.proven_failure(), None);
}

#[test]
fn errors_before_the_refusals_do_not_count() {
    let mut observations = Observations::default();
    observations.record_rendezvous_error(R::NotCompleted);
    for point in [1, 2, 0] {
        observations.record_rendezvous_error(R::IntroductionRefused { point });
        assert_eq!(observations.proven_failure(), None);
    }
    observations.record_rendezvous_error(R::IntroductionRefused { point: 1 });
    assert_eq!(
        observations.proven_failure(),
        Some(Failure::IntroductionFailed)
    );
}

#[test]
fn a_second_refusal_after_another_error_proves_nothing() {
    let mut observations = Observations::default();
    observations.record_rendezvous_error(R::IntroductionRefused { point: 0 });
    observations.record_rendezvous_error(R::IntroductionTimedOut);
    observations.record_rendezvous_error(R::IntroductionRefused { point: 0 });
    assert_eq!(observations.proven_failure(), None);
}
