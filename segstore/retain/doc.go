// Package retain decides what of a store is removed or thinned, and when. It is a set of pure functions
// from facts to actions: no disk, clock, logger or error, so that the store, a dry run and a test ask
// the same questions and get the same answers.
//
// What always holds:
//
//   - What an evidence lock touches, be it one instant of a segment, is neither removed nor thinned.
//   - Age removes whatever there is room for. A hub's hold postpones that up to the lease's end, and "not
//     yet retrieved" up to the longest extension that the rule gives.
//   - Pressure (a volume short of free space, a camera or the store over its quota) removes from the
//     oldest on: first what no hub waits for, then what is not yet retrieved, then what a hub holds.
//     Nothing younger goes before something older of the same rank on account of the same pressure, and
//     no more goes than the pressure needs. It acts ahead: what will probably be written until the next
//     decision counts as written.
//   - Thinning is by age alone, and postponed as removal is. Pressure never thins: how much that frees is
//     known only afterwards, and it takes the bytes of a whole segment to write one anew.
//   - Every action says in words which rule asked for it and by how much, and what could not be freed is
//     told as a shortage that says why.
//   - Equal facts give equal plans.
//
// What a hub waits for is taken from its holds. Held is what lies in the spans of a lease that has not
// ended. Not yet retrieved is what lies in a hold's spans or was recorded after the moment up to which
// its holder has considered the stream; that counts while the lease lasts, and, where the rule keeps until
// retrieved, for the longest extension after it, as the link that would renew it is then down.
//
// A store has up to a million segments. A plan looks only at those that it needs: it walks each stream
// from its oldest segment on, passes over locked, held and thinned time without looking, and stops when
// it has enough. Its work is near-linear in the actions, the streams, and the spans of locks and holds.
package retain
