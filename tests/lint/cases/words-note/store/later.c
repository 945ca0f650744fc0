/* TODO: think */
