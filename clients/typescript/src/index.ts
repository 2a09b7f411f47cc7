export { type Asked, type Asking, Client, type ClientOptions, type Finished, type Following, type Sent } from "./client.js";
export {
  Conflict,
  Forbidden,
  HostlerError,
  Invalid,
  NotFound,
  Refused,
  TooLarge,
  TooMany,
  Unauthorised,
  Unavailable,
} from "./errors.js";
export { LiveSession, type SessionState } from "./live.js";
export {
  type Call,
  EMPTY,
  type Errand,
  fold,
  type Message,
  type ModelMessage,
  textOf,
  type Transcript,
  type UserMessage,
  type Wanted,
} from "./transcript.js";
export type { components, operations, paths } from "./api.js";
export * from "./types.js";
