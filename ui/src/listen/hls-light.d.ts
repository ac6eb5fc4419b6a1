// hls.js publishes no types for its light build; it is the whole one with parts left out.
declare module "hls.js/light" {
    export { default } from "hls.js";
}
