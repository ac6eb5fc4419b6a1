import { mount } from "svelte";
import Missing from "./Missing.svelte";

mount(Missing, { target: document.body });
