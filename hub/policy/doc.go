// Package policy decides what a hub wants from its sites, and in which order. It is a set of pure
// functions from facts to wants: no context, clock, logger or error, so that the fetcher, a dry run
// and a test ask the same questions and get the same answers.
//
// What always holds:
//
//   - A stream follows the first [Policy] whose pattern matches it; without a match nothing is wanted.
//     An operator's request does not pass through policies: it is a [Want] of its own.
//   - Backfill is no mechanism of its own: after an outage the same subtraction (wanted and existing,
//     minus held) has another result.
//   - A plan's pieces of one stream never overlap; time that several wants cover belongs to the most
//     urgent. What is planned and what is held together cover all that is wanted and exists, so a
//     plan that was carried out leaves nothing to plan.
package policy
