import { mount } from "svelte";
import Docs from "./Docs.svelte";

mount(Docs, { target: document.body });
