// Package api offers a hub to its console and to scripts: REST and WebSocket as openapi.yaml describes them.
package api
