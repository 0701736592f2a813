// Package api offers a hub to its console and to scripts: REST and WebSocket as openapi.yaml describes
// them. It translates between the API's words and the parts of a hub, and decides nothing.
//
// What always holds:
//
//   - What is served is what openapi.yaml describes, and nothing else but the console's page. The types
//     and the JSON operations are generated from it.
//   - Nothing under /api/v1 but logging in is answered without a session; the one table of roles gives
//     what is not in it to administrators alone. What a page of another origin sends is refused.
//   - What is audited (logging in and out, sites, retrievals, users, playback, downloads) is recorded
//     durably before it is done, and not done if it cannot be recorded.
//   - Errors become answers by one table. What an error says of the hub's inside goes to the log alone.
//   - Playback holds one buffer and one reader at the source however long the range; a live receiver or
//     one of events that is slow costs itself pictures, and the hub a bounded buffer. The number of both
//     is limited.
//   - When [Serve] returns, no request, playback or WebSocket connection of it is left.
package api
