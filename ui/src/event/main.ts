import { mount } from "svelte";
import Event from "./Event.svelte";

mount(Event, { target: document.body });
