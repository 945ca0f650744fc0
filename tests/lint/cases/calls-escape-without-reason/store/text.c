int store_text(const char *text) {
    return atoi(text); /* lint: allow atoi: */
}
